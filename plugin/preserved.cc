// SPDX-License-Identifier: Apache-2.0
#include "plugin/preserved.h"

#include <algorithm>

namespace ckpt {
namespace {

constexpr char kSpillName[] = "preserved";

}  // namespace

void PreservedQueue::put(PreservedCopy copy) {
  const MutexLock lock(mutex_);
  ++arrivals_;
  blocks_ += block_count(copy.data.size());
  Item item{std::move(copy), 0, std::nullopt};
  item.length = item.copy.data.size();
  const Epoch epoch = item.copy.epoch;
  if (memory_bytes_ + item.length <= limits_.memory_bytes) {
    memory_bytes_ += item.length;
  } else if (!spill(item)) {
    lost_ = std::max(lost_, epoch);
    return;
  }
  items_.push_back(std::move(item));
}

bool PreservedQueue::spill(Item& item) {
  const bool room = memory_bytes_ + spilled_bytes_ + item.length <= limits_.total_bytes;
  if (!room || !open_spill_file() || !spill_file_->write(spilled_bytes_, item.copy.data)) {
    return false;
  }
  item.spilled_at = spilled_bytes_;
  spilled_bytes_ += item.length;
  item.copy.data = {};
  return true;
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

Result<std::optional<PreservedCopy>> PreservedQueue::next() {
  const MutexLock lock(mutex_);
  if (items_.empty()) {
    return std::optional<PreservedCopy>();
  }
  Item item = std::move(items_.front());
  items_.pop_front();
  if (item.spilled_at) {
    item.copy.data.resize(item.length);
    CKPT_TRY(spill_file_->read(*item.spilled_at, item.copy.data));
  } else {
    memory_bytes_ -= item.length;
  }
  if (items_.empty()) {
    spilled_bytes_ = 0;
  }
  return std::optional(std::move(item.copy));
}

void PreservedQueue::clear() {
  const MutexLock lock(mutex_);
  items_.clear();
  memory_bytes_ = 0;
  spilled_bytes_ = 0;
  lost_ = Epoch{};
}

bool PreservedQueue::empty() {
  const MutexLock lock(mutex_);
  return items_.empty();
}

Epoch PreservedQueue::lost() {
  const MutexLock lock(mutex_);
  return lost_;
}

}  // namespace ckpt
