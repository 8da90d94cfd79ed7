// SPDX-License-Identifier: Apache-2.0
#include "plugin/block_locks.h"

#include <algorithm>

namespace ckpt {

BlockLocks::Hold::Hold(BlockLocks& locks, BlockRange blocks) : locks_(locks), blocks_(blocks) {
  const MutexLock lock(locks_.mutex_);
  locks_.holds_.push_back(this);
  ++locks_.waiting_;
  while (locks_.is_blocked(*this)) {
    locks_.released_.wait(locks_.mutex_);
  }
  --locks_.waiting_;
}

BlockLocks::Hold::~Hold() {
  const MutexLock lock(locks_.mutex_);
  locks_.remove(*this);
}

bool BlockLocks::is_blocked(const Hold& hold) const {
  for (const Hold* const earlier : holds_) {
    if (earlier == &hold) {
      return false;
    }
    if (earlier->blocks_.overlaps(hold.blocks_)) {
      return true;
    }
  }
  return false;
}

void BlockLocks::remove(const Hold& hold) {
  holds_.erase(std::find(holds_.begin(), holds_.end(), &hold));
  if (waiting_ > 0) {
    released_.notify_all();
  }
}

}  // namespace ckpt
