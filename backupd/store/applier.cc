// SPDX-License-Identifier: Apache-2.0
#include "backupd/store/applier.h"

#include <algorithm>
#include <utility>

#include "common/phase.h"

namespace ckpt {

uint64_t ConfirmedCheckpoint::stored_bytes() const {
  uint64_t total = 0;
  for (const auto& file : files) {
    total += file->stored_bytes();
  }
  return total;
}

void Applier::enqueue(ConfirmedCheckpoint checkpoint) {
  const MutexLock lock(queue_mutex_);
  waiting_bytes_ += checkpoint.stored_bytes();
  ++waiting_checkpoints_;
  queue_.push_back(std::move(checkpoint));
}

Result<bool> Applier::step() {
  const MutexLock lock(pass_mutex_);
  return step_locked();
}

Result<> Applier::finish() {
  const MutexLock lock(pass_mutex_);
  return finish_locked();
}

Result<> Applier::read(uint64_t offset, ByteSpan buffer) {
  const MutexLock lock(pass_mutex_);
  CKPT_TRY(catch_up_locked());
  return parts_.image.read(offset, buffer);
}

Result<std::optional<ByteRange>> Applier::next_data(uint64_t offset) {
  const MutexLock lock(pass_mutex_);
  CKPT_TRY(catch_up_locked());
  return parts_.image.next_data(offset);
}

Result<> Applier::catch_up() {
  const MutexLock lock(pass_mutex_);
  return catch_up_locked();
}

Result<> Applier::begin_snapshot(Snapshot& snapshot, const std::function<void()>& at_begin) {
  const MutexLock lock(pass_mutex_);
  CKPT_TRY(catch_up_locked());
  at_begin();
  snapshots_.push_back(&snapshot);
  return {};
}

void Applier::end_snapshot(Snapshot& snapshot) {
  const MutexLock lock(pass_mutex_);
  std::erase(snapshots_, &snapshot);
}

void Applier::follow(Changes& changes) {
  const MutexLock lock(pass_mutex_);
  followers_.push_back(&changes);
}

void Applier::unfollow(Changes& changes) {
  const MutexLock lock(pass_mutex_);
  std::erase(followers_, &changes);
}

bool Applier::has_work() const {
  const MutexLock lock(queue_mutex_);
  return in_pass_ || !queue_.empty();
}

bool Applier::has_only_to_sync() const {
  const MutexLock lock(queue_mutex_);
  return is_caught_up_ && queue_.empty();
}

size_t Applier::waiting_checkpoints() const {
  const MutexLock lock(queue_mutex_);
  return waiting_checkpoints_;
}

uint64_t Applier::waiting_bytes() const {
  const MutexLock lock(queue_mutex_);
  return waiting_bytes_;
}

std::string Applier::problem() const {
  const MutexLock lock(queue_mutex_);
  return problem_;
}

Result<bool> Applier::step_locked() {
  CKPT_TRY(parts_.latch.check());
  if (take_waiting() && work_done_ == work_.size()) {
    return true;  // what joined is empty: whether to sync is for the caller to say
  }
  if (pass_.empty()) {
    return false;
  }
  if (auto advanced = advance(); !advanced) {
    // Once `applied` is recorded, older data must not be written over the image again.
    work_done_ = is_recorded_ ? work_done_ : 0;
    note_progress();
    note_problem(advanced.error().message());
    return parts_.latch.set(advanced.error());
  }
  return has_work();
}

Result<> Applier::finish_locked() {
  CKPT_TRY(parts_.latch.check());
  bool more = has_work();
  while (more) {
    CKPT_ASSIGN(more, step_locked());
  }
  return {};
}

// Stops before the sync that ends a pass.
Result<> Applier::catch_up_locked() {
  CKPT_TRY(parts_.latch.check());
  while (has_work() && !has_only_to_sync()) {
    CKPT_TRY(step_locked());
  }
  return {};
}

// Into the pass that is under way, unless that one is recorded as done. False: nothing.
bool Applier::take_waiting() {
  if (is_recorded_) {
    return false;
  }
  std::deque<ConfirmedCheckpoint> waiting;
  {
    const MutexLock lock(queue_mutex_);
    if (queue_.empty()) {
      return false;
    }
    waiting.swap(queue_);
    in_pass_ = true;
    is_caught_up_ = false;
  }
  if (!pass_.empty()) {
    CKPT_PROBE(checkpoint_joined_a_pass);
  }
  for (ConfirmedCheckpoint& checkpoint : waiting) {
    plan(checkpoint);
    pass_.push_back(std::move(checkpoint));
  }
  note_progress();
  return true;
}

// Checkpoints, the files of each and the batches of each are in order already.
void Applier::plan(const ConfirmedCheckpoint& checkpoint) {
  for (const auto& file : checkpoint.files) {
    for (const auto& [sequence, batch] : file->batches()) {
      work_.push_back({file.get(), &batch});
    }
  }
  if (CKPT_PLANTED(apply_in_reverse_order)) {
    std::ranges::reverse(work_);
  }
}

void Applier::note_progress() {
  const MutexLock lock(queue_mutex_);
  is_caught_up_ = !pass_.empty() && work_done_ == work_.size();
  if (is_caught_up_) {
    problem_.clear();
  }
}

// These are about to change.
void Applier::warn(const std::vector<Extent>& extents) {
  for (Snapshot* const snapshot : snapshots_) {
    CKPT_PROBE(applied_during_an_export);
    snapshot->preserve(extents);
  }
  for (Changes* const changes : followers_) {
    changes->add(extents);
  }
}

Result<> Applier::advance() {
  const PhaseScope phase(Phase::kApplying);
  if (work_done_ == work_.size()) {
    return end_pass();
  }
  const Work& work = work_[work_done_];
  CKPT_TRY(work.file->read_into(buffer_, *work.batch, parts_.size_bytes));
  warn(buffer_.batch.extents);
  if (auto applied = parts_.image.apply(buffer_.batch);
      !applied && !CKPT_PLANTED(failed_write_taken_for_success)) {
    return applied;
  }
  ++work_done_;
  if (work_done_ == work_.size()) {
    buffer_ = {};  // memory is held while there is work, not between
  }
  note_progress();
  return {};
}

Result<> Applier::end_pass() {
  const Epoch number = pass_.back().number;
  if (!is_recorded_) {
    if (!CKPT_PLANTED(free_journal_before_image_sync)) {
      CKPT_TRY(parts_.image.sync());
    }
    if (CKPT_PLANTED(free_journal_before_applied)) {
      CKPT_TRY(remove_files());
    }
    CKPT_TRY(record_applied(number));
    is_recorded_ = true;
  }
  CKPT_TRY(remove_files());
  if (CKPT_PLANTED(free_journal_before_image_sync)) {
    CKPT_TRY(parts_.image.sync());
  }
  parts_.image.applied(number);
  forget_pass();
  return {};
}

void Applier::forget_pass() {
  uint64_t bytes = 0;
  for (const ConfirmedCheckpoint& checkpoint : pass_) {
    bytes += checkpoint.stored_bytes();
  }
  const size_t checkpoints = pass_.size();
  work_.clear();
  work_done_ = 0;
  pass_.clear();
  is_recorded_ = false;
  const MutexLock lock(queue_mutex_);
  in_pass_ = false;
  is_caught_up_ = false;
  waiting_bytes_ -= bytes;
  waiting_checkpoints_ -= checkpoints;
  problem_.clear();
  ++passes_;
}

Result<> Applier::record_applied(Epoch number) {
  return parts_.volume.update([number](StoreRecord& record) {
    record.applied = number;
    if (record.last->id.number == number) {
      record.confirmed = {};
    }
  });
}

Result<> Applier::remove_files() {
  for (const ConfirmedCheckpoint& checkpoint : pass_) {
    for (const auto& file : checkpoint.files) {
      auto removed = parts_.journal.remove(journal_name(file->epoch()));
      // A step before this one may have failed after it had removed some.
      if (!removed && removed.error().kind != ErrorKind::kNotFound) {
        return removed;
      }
    }
  }
  return final_failure(parts_.journal.sync());
}

void Applier::note_problem(const std::string& text) {
  const MutexLock lock(queue_mutex_);
  problem_ = text;
}

}  // namespace ckpt
