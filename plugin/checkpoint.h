// SPDX-License-Identifier: Apache-2.0
// Making checkpoints: cut, ship, intent, confirm, record (design 3, "Checkpoint").
#pragma once

#include <deque>
#include <memory>

#include "plugin/session.h"
#include "plugin/volume_api.h"

namespace ckpt {

// Threads:    take() by callers, who wait in it; the others by the pump, one thread at a time.
// Durability: take() succeeds once the store has confirmed the checkpoint durably.
// Failure:    void (kVoid) whenever it fails before CONFIRM is sent; afterwards the next session
// settles
//             it, and a caller who cannot wait is told that it may exist (kTimeout).
class CheckpointMaker {
 public:
  CheckpointMaker(Disk& disk, StoreLink& store, VolumeRecordFile& record, Shipper& shipper,
                  Session& session)
      : disk_(disk), store_(store), record_(record), shipper_(shipper), session_(session) {}

  // Asks for a checkpoint and waits for it. Callers queue.
  Result<CheckpointOutcome> take(const CheckpointRequest& request);
  // Asks for one without waiting for it.
  void ask(const CheckpointRequest& request);

  // One step of the checkpoint in progress, or the begin of the next. False: nothing to do now.
  bool step();
  // Settles the checkpoint in progress by a session that was just opened.
  void settle(HandshakeRow row);
  // Voids what is in progress or in the queue; the reason is what callers are told. Not while the
  // outcome is unknown. The closed epoch's writers must leave soon.
  void cancel(const std::string& reason, ErrorKind kind = ErrorKind::kVoid);
  // The session was lost while it was being shipped: what the store had of it is gone.
  void void_lost(const Error& reason);
  // Whatever the closed epoch waits for, but a sync that was made: its blocks stay changed. The
  // open intent says the rest.
  void leave();
  // Callers wait no longer: the server stops.
  void stop();
  // A written map that only waits for the image's sync is kept: its blocks stay changed.
  void fold();

  [[nodiscard]] bool is_idle() const { return stage_ == Stage::kIdle; }
  [[nodiscard]] bool is_asked() { return asked() != 0; }
  // How many are in the queue, those whose callers have given up included.
  [[nodiscard]] size_t asked();
  // Somebody waits for one that, without a session, only a new one can begin or say the outcome of.
  [[nodiscard]] bool is_waited_for();
  // How long ago the checkpoint that is being shipped was cut; 0: none is.
  [[nodiscard]] std::chrono::nanoseconds shipping_for() const;
  // Whether one was cut and neither exists nor is void yet.
  [[nodiscard]] bool is_making() const { return !is_idle() && !waits_for_sync(); }
  // The last checkpoint exists, and only its written map is still there.
  [[nodiscard]] bool waits_for_sync() const { return stage_.load() == Stage::kExists; }
  // The epoch whose written map waits for a sync of the image that begins now or later; 0: none.
  [[nodiscard]] Epoch wants_sync() const;
  // Such a sync, begun after wants_sync() said n, has succeeded.
  void synced(Epoch n);
  // No sync will begin soon: a checkpoint that is asked for does not wait for it, and what the
  // one before wrote counts as changed until the next sync.
  void set_sync_rests(bool rests) { sync_rests_.store(rests); }
  // The outcome is unknown, and the store cannot be asked: tells the caller so.
  void doubt(const Error& reason);

 private:
  enum class Stage {
    kIdle,
    kShipping,  // cut; void on any failure
    kUnknown,   // CONFIRM was sent and not answered
    kExists,    // recorded; its written map waits for the image's sync
  };
  struct Ticket {
    CheckpointRequest request;
    std::optional<Result<CheckpointOutcome>> result;
    bool has_waiter = false;  // who has not given up
    bool is_cut = false;
    Epoch cut_epoch{};     // 0: not yet
    bool is_sent = false;  // CONFIRM
    bool is_abandoned = false;
  };
  using TicketPtr = std::shared_ptr<Ticket>;  // owned by the waiting caller and the queue

  TicketPtr enqueue(const CheckpointRequest& request, bool has_waiter);
  // Nothing: the time is over, or the server stops. Tells of the cut meanwhile.
  std::optional<Result<CheckpointOutcome>> wait_answered(const Ticket& ticket, SteadyTime deadline);
  // Until it is cut, answered, or neither in time; its epoch if it is cut.
  Epoch wait_cut(const Ticket& ticket, SteadyTime deadline);
  Result<CheckpointOutcome> give_up(Ticket& ticket, const std::string& store) CKPT_REQUIRES(mutex_);
  void answer(const TicketPtr& ticket, Result<CheckpointOutcome> result);
  TicketPtr next_ticket();
  [[nodiscard]] Result<> check_free(const std::string& name) const;
  void cut(TicketPtr ticket);
  bool ship();
  Result<bool> ship_closed(EpochObject& closed);
  // All blocks are sent: attachments, then CONFIRM.
  void ship_rest(EpochObject& closed);
  // Sends what has come of the attachments. True: some of them is still to come.
  Result<bool> ship_attachments(EpochObject& closed);
  void fail_to_ship(const Error& error);
  [[nodiscard]] std::optional<Error> reason_to_void();
  void void_closed(const Error& error);
  [[nodiscard]] CheckpointInfo describe();
  [[nodiscard]] bool commit_to_confirm();
  Result<> record_intent();
  void complete();
  void exists();
  void note_existence(const CheckpointOutcome& outcome);
  void note_void(uint64_t number, const std::string& why);
  bool finish();

  Disk& disk_;
  StoreLink& store_;
  VolumeRecordFile& record_;
  Shipper& shipper_;
  Session& session_;
  std::atomic<Stage> stage_{Stage::kIdle};  // changed by the pump only
  TicketPtr active_;
  CheckpointInfo making_;
  WallTime cut_time_{};
  std::atomic<SteadyTime> cut_steady_{};
  Error failure_;  // why the outcome is unknown
  std::atomic<uint64_t> sync_wanted_{0};
  std::atomic<uint64_t> sync_done_{0};
  std::atomic<bool> sync_rests_{false};
  Mutex mutex_;
  CondVar answered_;
  std::deque<TicketPtr> queue_ CKPT_GUARDED_BY(mutex_);
  bool stopping_ CKPT_GUARDED_BY(mutex_) = false;
};

}  // namespace ckpt
