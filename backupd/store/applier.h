// SPDX-License-Identifier: Apache-2.0
// Brings the back-up image from one confirmed checkpoint to the next.
#pragma once

#include <atomic>
#include <deque>
#include <memory>
#include <vector>

#include "backupd/store/backup_image.h"
#include "backupd/store/changes.h"
#include "backupd/store/journal_file.h"
#include "backupd/store/latch.h"
#include "backupd/store/snapshot.h"
#include "backupd/store/volume_file.h"

namespace ckpt {

// A confirmed checkpoint that the image does not have yet, with the journal files it covers and the
// one its confirm record is in, ascending.
struct ConfirmedCheckpoint {
  Epoch number;
  std::vector<std::unique_ptr<JournalFile>> files;

  [[nodiscard]] uint64_t stored_bytes() const;
};

// Applies in passes: all checkpoints that were confirmed before a pass ends, batch by batch in
// (epoch, sequence) order; then the image is synced, `applied` recorded, and the journal files are
// unlinked. Whoever steps decides when a pass ends: as long as it has only to sync, what is
// confirmed meanwhile joins it. A pass that is interrupted anywhere is done again from its start:
// applying twice changes nothing.
//
// Lifetime: image, directory, volume file and latch must outlive it.
// Threads:  all methods from any thread. Steps and reads exclude one another.
// Failure:  after kNoSpace the next step begins the pass again (or goes on unlinking); any other
// error latches.
class Applier {
 public:
  struct Parts {
    BackupImage& image;
    Directory& journal;
    VolumeFile& volume;
    Latch& latch;
    uint64_t size_bytes;
  };

  explicit Applier(const Parts& parts) : parts_(parts) {}

  // Checkpoints come in the order of their numbers.
  void enqueue(ConfirmedCheckpoint checkpoint) CKPT_EXCLUDES(queue_mutex_);
  // Applies one batch, or ends a pass, or lets an empty checkpoint join it. True: there is more to
  // do.
  Result<bool> step() CKPT_EXCLUDES(pass_mutex_, queue_mutex_);
  // Steps until everything that was confirmed before the call is applied.
  Result<> finish() CKPT_EXCLUDES(pass_mutex_, queue_mutex_);
  // The image at the last confirmed checkpoint: applies what is missing first, and keeps steps out
  // meanwhile.
  Result<> read(uint64_t offset, ByteSpan buffer) CKPT_EXCLUDES(pass_mutex_, queue_mutex_);
  Result<std::optional<ByteRange>> next_data(uint64_t offset)
      CKPT_EXCLUDES(pass_mutex_, queue_mutex_);
  // Applies what is confirmed, without the sync that ends the pass.
  Result<> catch_up() CKPT_EXCLUDES(pass_mutex_, queue_mutex_);

  // The image as it is at the last confirmed checkpoint, handed over before it changes, until
  // end_snapshot(). at_begin: called at that instant, with steps kept out.
  Result<> begin_snapshot(Snapshot& snapshot, const std::function<void()>& at_begin)
      CKPT_EXCLUDES(pass_mutex_, queue_mutex_);
  void end_snapshot(Snapshot& snapshot) CKPT_EXCLUDES(pass_mutex_);
  // Tells of each block before it changes, until unfollow(). It outlives that.
  void follow(Changes& changes) CKPT_EXCLUDES(pass_mutex_);
  void unfollow(Changes& changes) CKPT_EXCLUDES(pass_mutex_);

  // These do not wait for I/O.
  [[nodiscard]] bool has_work() const CKPT_EXCLUDES(queue_mutex_);
  // Whether all that is confirmed is in the image: the next step syncs and ends the pass.
  [[nodiscard]] bool has_only_to_sync() const CKPT_EXCLUDES(queue_mutex_);
  // Confirmed checkpoints that are not applied.
  [[nodiscard]] size_t waiting_checkpoints() const CKPT_EXCLUDES(queue_mutex_);
  // Confirmed and not applied, as stored.
  [[nodiscard]] uint64_t waiting_bytes() const CKPT_EXCLUDES(queue_mutex_);
  // How many passes have ended.
  [[nodiscard]] uint64_t passes() const { return passes_.load(); }
  // Why the last pass ended early; empty: it did not.
  [[nodiscard]] std::string problem() const CKPT_EXCLUDES(queue_mutex_);

 private:
  struct Work {
    JournalFile* file;
    const JournalBatch* batch;
  };

  Result<bool> step_locked() CKPT_REQUIRES(pass_mutex_) CKPT_EXCLUDES(queue_mutex_);
  Result<> finish_locked() CKPT_REQUIRES(pass_mutex_) CKPT_EXCLUDES(queue_mutex_);
  Result<> catch_up_locked() CKPT_REQUIRES(pass_mutex_) CKPT_EXCLUDES(queue_mutex_);
  bool take_waiting() CKPT_REQUIRES(pass_mutex_) CKPT_EXCLUDES(queue_mutex_);
  void plan(const ConfirmedCheckpoint& checkpoint) CKPT_REQUIRES(pass_mutex_);
  void note_progress() CKPT_REQUIRES(pass_mutex_) CKPT_EXCLUDES(queue_mutex_);
  void warn(const std::vector<Extent>& extents) CKPT_REQUIRES(pass_mutex_);
  Result<> advance() CKPT_REQUIRES(pass_mutex_) CKPT_EXCLUDES(queue_mutex_);
  Result<> end_pass() CKPT_REQUIRES(pass_mutex_) CKPT_EXCLUDES(queue_mutex_);
  void forget_pass() CKPT_REQUIRES(pass_mutex_) CKPT_EXCLUDES(queue_mutex_);
  Result<> record_applied(Epoch number) CKPT_REQUIRES(pass_mutex_);
  Result<> remove_files() CKPT_REQUIRES(pass_mutex_);
  void note_problem(const std::string& text) CKPT_EXCLUDES(queue_mutex_);

  const Parts parts_;
  // Locked in this order, with a snapshot's in between. pass_mutex_ is held over I/O, queue_mutex_
  // never.
  Mutex pass_mutex_;
  mutable Mutex queue_mutex_;
  std::vector<ConfirmedCheckpoint> pass_ CKPT_GUARDED_BY(pass_mutex_);
  std::vector<Work> work_ CKPT_GUARDED_BY(pass_mutex_);
  size_t work_done_ CKPT_GUARDED_BY(pass_mutex_) = 0;
  BatchBuffer buffer_ CKPT_GUARDED_BY(pass_mutex_);
  // Their owners', until end_snapshot() and unfollow().
  std::vector<Snapshot*> snapshots_ CKPT_GUARDED_BY(pass_mutex_);
  std::vector<Changes*> followers_ CKPT_GUARDED_BY(pass_mutex_);
  std::atomic<uint64_t> passes_{0};
  bool is_recorded_ CKPT_GUARDED_BY(pass_mutex_) = false;  // `applied` says that the pass is done
  std::deque<ConfirmedCheckpoint> queue_ CKPT_GUARDED_BY(queue_mutex_);
  bool in_pass_ CKPT_GUARDED_BY(queue_mutex_) = false;
  bool is_caught_up_ CKPT_GUARDED_BY(queue_mutex_) = false;  // the pass has only to be ended
  uint64_t waiting_bytes_ CKPT_GUARDED_BY(queue_mutex_) = 0;
  size_t waiting_checkpoints_ CKPT_GUARDED_BY(queue_mutex_) = 0;
  std::string problem_ CKPT_GUARDED_BY(queue_mutex_);
};

}  // namespace ckpt
