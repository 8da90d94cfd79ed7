// SPDX-License-Identifier: Apache-2.0
#include "backupd/store/applier.h"

#include <iterator>

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
  CKPT_TRY(finish_locked());
  return parts_.image.read(offset, buffer);
}

Result<std::optional<ByteRange>> Applier::next_data(uint64_t offset) {
  const MutexLock lock(pass_mutex_);
  CKPT_TRY(finish_locked());
  return parts_.image.next_data(offset);
}

bool Applier::has_work() const {
  const MutexLock lock(queue_mutex_);
  return in_pass_ || !queue_.empty();
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
  begin_pass();
  if (pass_.empty()) {
    return false;
  }
  if (auto advanced = advance(); !advanced) {
    // Once `applied` is recorded, older data must not be written over the image again.
    work_done_ = is_recorded_ ? work_done_ : 0;
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

// Unless one is under way.
void Applier::begin_pass() {
  if (!pass_.empty()) {
    return;
  }
  {
    const MutexLock lock(queue_mutex_);
    pass_.assign(std::make_move_iterator(queue_.begin()), std::make_move_iterator(queue_.end()));
    queue_.clear();
    in_pass_ = !pass_.empty();
  }
  plan_pass();
}

// Checkpoints, the files of each and the batches of each are in order already.
void Applier::plan_pass() {
  work_.clear();
  work_done_ = 0;
  for (const ConfirmedCheckpoint& checkpoint : pass_) {
    for (const auto& file : checkpoint.files) {
      for (const auto& [sequence, batch] : file->batches()) {
        work_.push_back({file.get(), &batch});
      }
    }
  }
}

Result<> Applier::advance() {
  if (work_done_ == work_.size()) {
    return end_pass();
  }
  const Work& work = work_[work_done_];
  CKPT_TRY(work.file->read_into(buffer_, *work.batch, parts_.size_bytes));
  CKPT_TRY(parts_.image.apply(buffer_.batch));
  ++work_done_;
  return {};
}

Result<> Applier::end_pass() {
  const Epoch number = pass_.back().number;
  if (!is_recorded_) {
    if (!CKPT_PLANTED(free_journal_before_image_sync)) {
      CKPT_TRY(parts_.image.sync());
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
  pass_.clear();
  buffer_ = {};  // memory is held while there is work, not between
  is_recorded_ = false;
  const MutexLock lock(queue_mutex_);
  in_pass_ = false;
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
