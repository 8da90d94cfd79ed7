// SPDX-License-Identifier: Apache-2.0
// The store of one volume: what a primary ships to, embedded or behind backupd.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "backupd/store/applier.h"
#include "backupd/store/attachments.h"
#include "backupd/store/pending.h"
#include "backupd/store/relay_sink.h"
#include "backupd/store/reserve.h"
#include "common/store_link.h"

namespace ckpt {

// Confirmed checkpoints that may wait to be applied, however small: each keeps files open.
inline constexpr size_t kUnappliedCheckpointsMax = 64;

struct StoreOptions {
  Uuid volume;
  uint64_t size_bytes = 0;
  std::string address;  // for status and messages
  // Confirmed bytes, as stored, that may wait to be applied; beyond them confirm() helps to apply.
  uint64_t unapplied_bytes_max = uint64_t{1} << 30U;
  // Outlives the store. Without one an export is ended as soon as anything waits for its
  // destination, else after 2 s.
  const Clock* clock = nullptr;
};

// Of a store whose image was a primary's (RejoinedImage).
inline constexpr char kStaleName[] = "stale";

// Layout of its directory: backup.img, journal/, attachments/, volume, reserve.
//
// Threads:    begin_session, accept, receive, attach, confirm, roll_back and free_reserve exclude
// one another;
//             apply_some runs beside them; status, checkpoints and has_work wait for no I/O of
//             theirs. There is no thread in here: somebody calls apply_some while has_work().
// Failure:    kNoSpace: pending is dropped at once and the session is over; a new one may find
// space. Any
//             other failed write or sync latches: every call returns that error until the store is
//             opened again. A batch or confirmation that is not valid ends the session only.
// Durability: when confirm(), accept() or roll_back() returns, it is recorded for good.
// Format:     docs/store-format.md
class Store : public StoreLink {
 public:
  // Creates the store in an empty directory, or recovers the one that is there. Nothing else may
  // have it open. kInvalid: the store of another volume or size, or not a store; kCorrupt: damaged,
  // nothing was changed.
  static Result<std::unique_ptr<Store>> open(std::unique_ptr<Directory> directory,
                                             const StoreOptions& options);
  ~Store() override = default;

  Result<StoreGreeting> begin_session() override CKPT_EXCLUDES(session_mutex_);
  Result<std::vector<BlockRange>> stale(uint64_t from) override CKPT_EXCLUDES(session_mutex_);
  Result<> accept(uint64_t incarnation) override CKPT_EXCLUDES(session_mutex_);
  Result<> tell_forks(const std::vector<CheckpointId>& forks) override
      CKPT_EXCLUDES(session_mutex_);
  Result<> receive(const EncodedBatch& batch) override CKPT_EXCLUDES(session_mutex_);
  Result<> attach(Epoch epoch, uint32_t index, ConstByteSpan piece) override
      CKPT_EXCLUDES(session_mutex_);
  Result<> confirm(const Confirmation& confirmation) override CKPT_EXCLUDES(session_mutex_);
  Result<> confirm_copy(const CheckpointCopy& copy) override CKPT_EXCLUDES(session_mutex_);
  Result<> roll_back(const CheckpointId& from, const Uuid& to) override
      CKPT_EXCLUDES(session_mutex_);
  // Fail-over: drops pending, goes on as the timeline `to` from the last checkpoint, and applies
  // all. When it returns, the image is that checkpoint, and is nobody's back-up: sessions, and
  // reads of the checkpoint, are refused from then on (kFenced), also after the next start. If it
  // was done before, `to` does not count. kNotFound: there is no checkpoint.
  Result<CheckpointInfo> promote(const Uuid& to) CKPT_EXCLUDES(session_mutex_) {
    const MutexLock lock(session_mutex_);
    return become_primary(to);
  }
  Result<> promote(const CheckpointId& from, const Uuid& to) override CKPT_EXCLUDES(session_mutex_);
  Result<> read_confirmed(uint64_t offset, ByteSpan buffer) override;
  Result<std::optional<ByteRange>> next_confirmed_data(uint64_t offset) override;
  Result<> export_checkpoint(std::optional<Epoch> number, ExportSink& sink) override
      CKPT_EXCLUDES(session_mutex_);
  Result<> read_attachment(Epoch number, const std::string& name, PieceSink& sink) override;
  Result<std::vector<CheckpointInfo>> checkpoints() override;
  StoreStatus status() override;

  // Hands over blocks of the last checkpoint in order to pass them on: which, the sink says. An
  // error of the sink's ends it, and does nobody else harm.
  Result<> relay(RelaySink& sink) CKPT_EXCLUDES(session_mutex_);
  // Tells of each block of the image before it changes, from now on until unfollow().
  void follow(Changes& changes) { applier_ ? applier_->follow(changes) : void(); }
  void unfollow(Changes& changes) { applier_ ? applier_->unfollow(changes) : void(); }
  // What is on record.
  [[nodiscard]] StoreRecord record() const { return volume_->record(); }

  // One step of the applier. True: there is more to do. After kNoSpace, wait before the next call.
  Result<bool> apply_some() { return applier_ ? applier_->step() : Result<bool>(false); }
  [[nodiscard]] bool has_work() const { return applier_ && applier_->has_work(); }
  // How often the applier has synced the image and recorded what it applied.
  [[nodiscard]] uint64_t passes() const { return applier_ ? applier_->passes() : 0; }
  // Whether the next step syncs the back-up image, and then frees the journal.
  [[nodiscard]] bool has_only_to_sync() const { return applier_ && applier_->has_only_to_sync(); }
  // Whether it does, and that can wait: confirm() would not soon have to help, and space has not
  // run out.
  [[nodiscard]] bool may_sync_later() const CKPT_EXCLUDES(state_mutex_);
  Result<> finish_applying() { return applier_ ? applier_->finish() : Result<>(); }
  // Called when there is new work for the applier, or another incarnation, from the thread that
  // brought it, with no lock held that has_work() or apply_some() takes. It must return soon.
  void set_work_listener(std::function<void()> listener) CKPT_EXCLUDES(state_mutex_);

  // Gives up space because the primary needs it: drops pending, the reserve, and what was reserved
  // or taken ahead in the image in this life. The session is over; later ones receive nothing until
  // the reserve fits again.
  Result<> free_reserve() CKPT_EXCLUDES(session_mutex_);

 private:
  enum class Session { kNone, kGreeted, kAccepted, kOver };

  Store(std::unique_ptr<Directory> directory, StoreOptions options);
  Result<> create(const std::vector<std::string>& names);
  Result<> recover(const std::vector<std::string>& names);
  Result<> assemble_promoted();
  Result<> load_stale(const StoreRecord& record) CKPT_EXCLUDES(session_mutex_);
  Result<> assemble(std::vector<ConfirmedCheckpoint> unapplied) CKPT_EXCLUDES(session_mutex_);
  Result<> check_identity(const StoreRecord& record) const;

  [[nodiscard]] Result<> check_session() const CKPT_REQUIRES(session_mutex_);
  // Judges the error of a session's act: drops pending, latches, ends the session. Returns the
  // error.
  Unexpected end_session(const Error& error) CKPT_REQUIRES(session_mutex_);
  Result<> free_space() CKPT_REQUIRES(session_mutex_);
  // Whether the image has what no checkpoint is made of yet, and no session brought.
  [[nodiscard]] bool is_rejoined() const { return volume_->record().rejoined.has_value(); }
  void forget_stale() CKPT_REQUIRES(session_mutex_);
  // What has arrived of a first copy is kept for the next session.
  Result<> keep_first_copy() CKPT_REQUIRES(session_mutex_);
  Result<> clear_first_copy() CKPT_REQUIRES(session_mutex_);
  Result<> drop_pending() CKPT_REQUIRES(session_mutex_);
  Result<> make_reserve() CKPT_REQUIRES(session_mutex_);
  Result<> check_batch(const BatchHeader& header) CKPT_REQUIRES(session_mutex_);
  [[nodiscard]] Result<> check_open(Epoch epoch, const char* what) const;
  Result<> take_piece(Epoch epoch, uint32_t index, ConstByteSpan piece)
      CKPT_REQUIRES(session_mutex_);
  [[nodiscard]] Result<> check_reserve() const CKPT_REQUIRES(session_mutex_);
  Result<> remove_leftovers(const std::vector<std::string>& of_journal);
  Result<> take_batch(const EncodedBatch& batch) CKPT_REQUIRES(session_mutex_);
  Result<> accept_locked(uint64_t incarnation) CKPT_EXCLUDES(session_mutex_);
  Result<> confirm_as(const Confirmation& confirmation, const std::vector<CheckpointId>* forks)
      CKPT_EXCLUDES(session_mutex_);
  [[nodiscard]] Result<> check_confirmation(const Confirmation& confirmation,
                                            const std::vector<CheckpointId>* forks) const
      CKPT_REQUIRES(session_mutex_);
  Result<> make_room(Epoch number) CKPT_REQUIRES(session_mutex_);
  Result<> begin_snapshot(std::optional<Epoch> number, Snapshot& snapshot,
                          const std::function<void(const StoreRecord&)>& at_begin)
      CKPT_EXCLUDES(session_mutex_);
  Result<> hand_over(std::optional<Epoch> number, ExportSink& sink) CKPT_EXCLUDES(session_mutex_);
  // Until the end of this object the applier is wanted by a checkpoint or a rollback.
  class Hurry;
  [[nodiscard]] bool must_hurry() const;
  [[nodiscard]] SteadyTime now() const;
  Result<> confirm_pending(const Confirmation& confirmation, const std::vector<CheckpointId>* forks)
      CKPT_REQUIRES(session_mutex_);
  [[nodiscard]] Result<> check_not_promoted() const;
  Result<CheckpointInfo> become_primary(const Uuid& to) CKPT_REQUIRES(session_mutex_);
  [[nodiscard]] Result<bool> check_fork(const CheckpointId& from, const Uuid& to) const;
  void publish_pending() CKPT_REQUIRES(session_mutex_) CKPT_EXCLUDES(state_mutex_);
  void set_problem(const std::string& text) CKPT_EXCLUDES(state_mutex_);
  void announce_work() CKPT_EXCLUDES(state_mutex_);

  const std::unique_ptr<Directory> directory_;
  const StoreOptions options_;
  mutable Latch latch_;

  // Order of locks: session_mutex_, then the applier's and a snapshot's, then those of image and
  // volume file, then state_mutex_ and the latch's. Only the last two are taken by status().
  Mutex session_mutex_;
  mutable Mutex state_mutex_;

  // Set once, before open() returns. What was promoted and applied has nothing but its record and
  // the attachments: the image is another's.
  std::unique_ptr<Directory> journal_;
  std::unique_ptr<Directory> attachments_folder_;
  std::unique_ptr<VolumeFile> volume_;
  std::unique_ptr<BackupImage> image_;
  std::unique_ptr<Applier> applier_;

  std::unique_ptr<Pending> pending_ CKPT_GUARDED_BY(session_mutex_);
  // read() alone is called without that lock.
  std::unique_ptr<Attachments> attachments_;
  std::unique_ptr<Reserve> reserve_ CKPT_GUARDED_BY(session_mutex_);
  Session session_ CKPT_GUARDED_BY(session_mutex_) = Session::kNone;
  std::optional<Error> over_ CKPT_GUARDED_BY(session_mutex_);      // why, when the session is over
  bool is_image_known_ CKPT_GUARDED_BY(session_mutex_) = false;    // what a first copy left is ours
  bool is_begun_ CKPT_GUARDED_BY(session_mutex_) = false;          // as greeted, until it is synced
  std::vector<BlockRange> stale_ CKPT_GUARDED_BY(session_mutex_);  // of a rejoined image
  Uuid timeline_ CKPT_GUARDED_BY(session_mutex_);  // of this session's batches; nil: none yet
  bool is_reserve_needed_ CKPT_GUARDED_BY(session_mutex_) = false;  // before anything is received

  std::atomic<bool> is_exporting_{false};
  std::atomic<bool> is_waited_for_{false};  // the applier is, since:
  std::atomic<SteadyTime> waited_since_{};
  uint64_t pending_bytes_ CKPT_GUARDED_BY(state_mutex_) = 0;
  std::string problem_ CKPT_GUARDED_BY(state_mutex_);
  std::function<void()> listener_ CKPT_GUARDED_BY(state_mutex_);
};

}  // namespace ckpt
