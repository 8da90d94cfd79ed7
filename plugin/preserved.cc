// SPDX-License-Identifier: Apache-2.0
#include "plugin/preserved.h"

#include <algorithm>
#include <new>

namespace ckpt {
namespace {

constexpr char kSpillName[] = "preserved";

}  // namespace

void PreservedQueue::keep(Epoch epoch, ByteRange range, File& image) {
  PreservedCopy copy{.epoch = epoch, .range = range, .spilled_at = {}, .data = {}};
  blocks_ += block_count(range.length);
  const bool room = make_room(copy);
  // Read and spilled outside the mutex: writers do not wait for one another.
  const bool filled = room && fill(copy, image);
  const MutexLock lock(mutex_);
  if (filled) {
    copies_.push_back(std::move(copy));
    waiting_bytes_ += range.length;
    return;
  }
  lost_ = std::max(lost_, epoch);
  if (room) {
    release_one(copy);
  }
}

bool PreservedQueue::make_room(PreservedCopy& copy) {
  const uint64_t bytes = copy.range.length;
  const MutexLock lock(mutex_);
  if (memory_bytes_ + bytes <= limits_.memory_bytes) {
    memory_bytes_ += bytes;
    return true;
  }
  if (memory_bytes_ + spilled_bytes_ + bytes > limits_.total_bytes || !open_spill_file()) {
    CKPT_PROBE(no_room_for_a_copy);
    return false;
  }
  CKPT_PROBE(copy_was_spilled);
  copy.spilled_at = spilled_bytes_;
  spilled_bytes_ += bytes;
  ++spilled_copies_;
  return true;
}

bool PreservedQueue::fill(PreservedCopy& copy, File& image) {
  // Not cleared: it is about to be read into. A client's write does not fail for want of it.
  copy.data.reset(new (std::nothrow) std::byte[copy.range.length]);
  const ByteSpan buffer(copy.data.get(), copy.range.length);
  if (copy.data == nullptr || !image.read(copy.range.offset, buffer)) {
    return false;
  }
  if (!copy.spilled_at) {
    return true;
  }
  const bool spilled = spill_file_->write(*copy.spilled_at, buffer).has_value();
  copy.data.reset();
  return spilled;
}

void PreservedQueue::release(std::span<const PreservedCopy> copies) {
  const MutexLock lock(mutex_);
  for (const PreservedCopy& copy : copies) {
    release_one(copy);
  }
}

void PreservedQueue::release_one(const PreservedCopy& copy) {
  if (!copy.spilled_at) {
    memory_bytes_ -= copy.range.length;
  } else if (--spilled_copies_ == 0) {
    spilled_bytes_ = 0;  // the file is filled from its start again
  }
}

Result<> PreservedQueue::open_spill_file() {
  if (spill_file_ != nullptr) {
    return {};
  }
  // One that a killed process left holds nothing of use.
  if (auto removed = directory_.remove(kSpillName);
      !removed && removed.error().kind != ErrorKind::kNotFound) {
    return removed;
  }
  CKPT_ASSIGN(spill_file_, directory_.open(kSpillName, OpenMode::kCreate));
  // It is only reached through this descriptor, and goes with the process.
  return directory_.remove(kSpillName);
}

void PreservedQueue::lose(Epoch epoch) {
  const MutexLock lock(mutex_);
  lost_ = std::max(lost_, epoch);
}

std::optional<PreservedCopy> PreservedQueue::next() {
  const MutexLock lock(mutex_);
  if (copies_.empty()) {
    return std::nullopt;
  }
  PreservedCopy copy = std::move(copies_.front());
  copies_.pop_front();
  waiting_bytes_ -= copy.range.length;
  return copy;
}

Result<> PreservedQueue::read(const PreservedCopy& copy, ByteSpan buffer) {
  if (copy.spilled_at) {
    return spill_file_->read(*copy.spilled_at, buffer);
  }
  copy_bytes({copy.data.get(), copy.range.length}, buffer);
  return {};
}

void PreservedQueue::clear() {
  const MutexLock lock(mutex_);
  for (const PreservedCopy& copy : copies_) {
    release_one(copy);
  }
  copies_.clear();
  waiting_bytes_ = 0;
  lost_ = Epoch{};
}

bool PreservedQueue::empty() {
  const MutexLock lock(mutex_);
  return copies_.empty();
}

uint64_t PreservedQueue::waiting_bytes() {
  const MutexLock lock(mutex_);
  return waiting_bytes_;
}

Epoch PreservedQueue::lost() {
  const MutexLock lock(mutex_);
  return lost_;
}

}  // namespace ckpt
