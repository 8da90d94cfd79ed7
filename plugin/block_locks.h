// SPDX-License-Identifier: Apache-2.0
// Locks on ranges of blocks: no two overlapping pieces are in flight at once.
#pragma once

#include <vector>

#include "common/block.h"
#include "common/mutex.h"

namespace ckpt {

// Threads: from any thread. First come, first served: a piece waits for every overlapping one that
//          came before it, held or waiting; so nobody starves. Not recursive.
// Order:   taken after region pins; while one is held its holder waits for the image's I/O only
// (and,
//          when the disk is full, for the store's reserve).
class BlockLocks {
 public:
  BlockLocks() { holds_.reserve(64); }

  // Holds the lock on some blocks as long as it lives; the locks outlive it.
  class Hold {
   public:
    Hold(BlockLocks& locks, BlockRange blocks);
    ~Hold();
    Hold(const Hold&) = delete;
    Hold& operator=(const Hold&) = delete;

   private:
    friend class BlockLocks;
    BlockLocks& locks_;
    BlockRange blocks_;
  };

 private:
  [[nodiscard]] bool is_blocked(const Hold& hold) const CKPT_REQUIRES(mutex_);
  void remove(const Hold& hold) CKPT_REQUIRES(mutex_);

  Mutex mutex_;
  CondVar released_;
  // In the order in which they came, held or waiting. As many as there are threads: a scan is
  // short.
  std::vector<const Hold*> holds_ CKPT_GUARDED_BY(mutex_);
  uint32_t waiting_ CKPT_GUARDED_BY(mutex_) = 0;
};

}  // namespace ckpt
