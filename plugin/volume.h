// SPDX-License-Identifier: Apache-2.0
// One protected disk: the write path, the pumps' steps, and what people ask of it.
#pragma once

#include "plugin/checkpoint.h"
#include "plugin/client_gate.h"
#include "plugin/narrower.h"
#include "plugin/rollback.h"
#include "plugin/start.h"
#include "plugin/verifier.h"
#include "plugin/write_path.h"

namespace ckpt {

// The image's sync after a checkpoint need not rest when no client has written for so long.
inline constexpr std::chrono::milliseconds kSyncLook{20};

struct VolumeOptions {
  StartOptions start;
  ShipOptions ship;
  ClientGate::Options clients;
  std::string image_path;                       // for status
  std::string attachments_path;                 // for status
  std::string name;                             // for status, and a back-up behind backupd
  std::string io;                               // for status: what is used and why
  bool has_backup = true;                       // the store is one
  bool needs_contact = false;                   // not opened, to be served, where it is not reached
  bool requires_backup = false;                 // writes fail while there is no session
  bool awaits_relay = false;                    // checkpoints are answered when one has them
  std::chrono::seconds checkpoint_interval{0};  // for status
  Progress on_rollback;                         // of one that was under way; may be empty
  // A checkpoint makes way for the clients for so long. The longer it is shipped, the more blocks
  // are overwritten, and have to be preserved, before they are sent.
  std::chrono::nanoseconds ship_patience = std::chrono::seconds(3);
};

// Makes or opens the store of a volume with this UUID and size; it outlives the volume.
using OpenStore = std::function<Result<StoreLink*>(const VolumeRecord& record)>;
// The primary's file system is full: frees the store's reserve; whether there was one.
using FreeReserve = std::function<bool()>;

// Threads:    requests from any number; ship_step() by one pump, keep_step() by another; what
// VolumeApi
//             has, from any. Started and joined by whoever owns it: there is no thread in here.
// Lifetime:   surroundings and store outlive it. close() ends it cleanly; the destructor abandons
// it, as
//             a kill would.
// Durability: see the parts; the rules are design 3 and 5.
class Volume : public VolumeApi {
 public:
  // Opens or creates the volume, greets its store, and finishes a rollback that was under way,
  // before anything is served. kFenced: store and image have diverged.
  static Result<std::unique_ptr<Volume>> open(const Surroundings& surroundings,
                                              const VolumeOptions& options,
                                              const OpenStore& open_store,
                                              const FreeReserve& free_reserve);
  // No request, step or command may be under way or come later.
  Result<> close();

  // Where the store is, from here on (backup_place.h).
  Result<> record_place(const std::string& place);

  // Requests, of a client that the gate knows.
  ClientGate& gate() { return gate_; }
  Result<> read(Client& client, uint64_t offset, ByteSpan buffer);
  Result<> write(Client& client, uint64_t offset, ConstByteSpan buffer, bool fua);
  Result<> zero(Client& client, ByteRange range, bool punch, bool fua);
  Result<> flush(Client& client);
  [[nodiscard]] uint64_t size_bytes() const { return disk().geometry.size_bytes; }

  // Makes checkpoints and ships. True: there is more to do at once; else wait_for_work() says when.
  bool ship_step();
  void wait_for_work(std::chrono::nanoseconds most = std::chrono::nanoseconds::max());
  // Whether a checkpoint has been shipped for so long that clients no longer come first.
  [[nodiscard]] bool is_late() const { return maker_.shipping_for() >= options_.ship_patience; }
  // Whether the pump has to wait for a processor: what may wait then does. By the pump.
  void set_crowded(bool crowded) { disk().crowded.store(crowded); }
  // Whether the steps compare with the store, for which nobody waits. By the pump.
  [[nodiscard]] bool is_narrowing() const { return narrower_.is_active(); }
  // How long ago a client's last write ended.
  [[nodiscard]] std::chrono::nanoseconds since_write() const { return disk().since_write(); }
  // Whether keep_step() has the image to sync for a checkpoint.
  [[nodiscard]] bool wants_sync() const { return maker_.wants_sync().value != 0; }
  // Ends wait_for_work().
  void wake() { disk().shipper.wake(); }
  // So many planned times of checkpoint-interval= have passed since the last call: asks for a
  // checkpoint without waiting for it. Those for which there is none count as missed: all but the
  // last, and that one too while one is made or asked for.
  void checkpoints_due(uint64_t count);
  // Where the server listens, for status(). Before anybody asks.
  void set_uris(std::vector<std::string> uris) { uris_ = std::move(uris); }
  // The server stops: callers of checkpoint() and verify() return soon.
  void stop_waiting();
  // Whether the back-up is reached, and knows how to become the primary.
  Result<> check_backup_promotes();
  // Gives the primary's role up to the back-up, which becomes the primary at the last checkpoint;
  // that is returned. Nobody may have written since. kVoid: nothing was changed. kHalfway: the
  // back-up may be the primary, or is, and what to do is said.
  Result<CheckpointInfo> promote_backup();
  // Syncs the image for checkpoints, unmarks regions, writes events. True: did something.
  bool keep_step();

  VolumeStatus status() override;
  Result<std::vector<CheckpointInfo>> checkpoints() override { return store_.checkpoints(); }
  Result<CheckpointOutcome> checkpoint(const CheckpointRequest& request) override;
  Result<RollbackOutcome> roll_back(const RollbackRequest& request,
                                    const Progress& progress) override;
  Result<VerifyOutcome> verify(const Progress& progress) override;
  Result<> accept() override;
  Result<> export_checkpoint(const std::string& id, ExportSink& sink) override;
  Result<> read_attachment(const std::string& id, const std::string& name,
                           PieceSink& sink) override;

 private:
  Volume(const Surroundings& surroundings, const VolumeOptions& options, StartedVolume started,
         StoreLink& store, const FreeReserve& free_reserve);
  template <typename Work>
  Result<> admitted(Client& client, bool is_write, const Work& work);
  Result<> begin();
  [[nodiscard]] Disk& disk() const { return *started_.disk; }
  Result<> open_session() CKPT_REQUIRES(work_mutex_);
  Result<> connect_store() CKPT_REQUIRES(work_mutex_);
  bool may_sync(SteadyTime now);
  void hurry_sync();
  Result<CheckpointOutcome> await_relay(CheckpointOutcome made, SteadyTime until);
  void ask_first_copy() CKPT_REQUIRES(work_mutex_);
  bool sync_for_checkpoint();
  bool ship_or_narrow() CKPT_REQUIRES(work_mutex_);
  [[nodiscard]] bool may_try_session() CKPT_REQUIRES(work_mutex_);
  void back_off() CKPT_REQUIRES(work_mutex_);
  void look_at_link() CKPT_REQUIRES(work_mutex_);
  bool may_wait_for_store(const Error& error);
  bool on_primary_full();
  StoreStatus store_status();
  void note_store(SteadyTime now);
  void note(EventKind kind) { disk().events.add({.kind = kind}); }
  Result<> finish_roll_back(const RollbackTarget& target);
  void note_rollback(const RollbackOutcome& outcome);

  std::optional<CheckpointInfo> last_checkpoint();
  std::optional<Epoch> lost_checkpoint();
  Result<> check_not_superseded();
  Result<CheckpointInfo> kept_checkpoint(std::string_view id);
  Result<> quiesce() CKPT_REQUIRES(work_mutex_);
  Result<RollbackOutcome> do_roll_back(const CheckpointInfo& target, const RollbackRequest& request,
                                       const Progress& progress) CKPT_REQUIRES(work_mutex_);
  Result<RollbackOutcome> run_roll_back(const CheckpointInfo& target, bool fence,
                                        const Progress& progress) CKPT_REQUIRES(work_mutex_);
  Result<RollbackOutcome> go_on_roll_back(const RollbackRequest& request, const Progress& progress);
  Result<RollbackOutcome> do_go_on_roll_back(const RollbackRequest& request,
                                             const Progress& progress) CKPT_REQUIRES(work_mutex_);
  void end_roll_back() CKPT_REQUIRES(work_mutex_);
  Result<> sync_before_roll_back();
  Result<RollbackOutcome> restore(const CheckpointInfo& target, const Progress& progress,
                                  SteadyTime began) CKPT_REQUIRES(work_mutex_);
  [[nodiscard]] RollbackOutcome preview(const CheckpointInfo& target) const;

  Surroundings surroundings_;
  const VolumeOptions options_;
  std::vector<std::string> uris_;
  StartedVolume started_;
  StoreLink& store_;
  const FreeReserve free_reserve_;
  ClientGate gate_;
  WritePath write_path_;
  Shipper shipper_;
  Session session_;
  CheckpointMaker maker_;
  Narrower narrower_;
  Rollback rollback_;
  std::atomic<bool> rolling_back_{false};
  std::atomic<bool> is_halfway_{false};  // it has stopped, and nobody goes on with it yet
  std::atomic<bool> reserve_freed_{false};
  std::atomic<bool> stopping_{false};

  // Held by a step of ship_step() and by a whole rollback: nothing ships during a rollback.
  Mutex work_mutex_;
  std::atomic<uint32_t> work_wanted_{0};  // who wait for it: ship_step() lets them in first
  SteadyTime next_try_ CKPT_GUARDED_BY(work_mutex_){};
  SteadyTime last_try_ CKPT_GUARDED_BY(work_mutex_){};
  SteadyTime next_first_copy_ CKPT_GUARDED_BY(work_mutex_){};
  SteadyTime session_since_ CKPT_GUARDED_BY(work_mutex_){};
  std::chrono::nanoseconds retry_ CKPT_GUARDED_BY(work_mutex_){std::chrono::seconds(1)};
  SteadyTime next_unmark_{};   // the keeper's own
  Pace sync_pace_{kSyncLook};  // also
  bool sync_delayed_ = false;  // also: the sync that is wanted was delayed already, if need be
  std::atomic<uint32_t> sync_waiters_{0};  // who need the sync now
  SteadyTime next_store_look_{};           // the keeper's own
  std::string store_state_;                // also: as the last event says
};

}  // namespace ckpt
