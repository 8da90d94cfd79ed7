// SPDX-License-Identifier: Apache-2.0
// Which blocks of a back-up image have changed, for whoever copies it on.
#pragma once

#include <utility>
#include <vector>

#include "backupd/store/block_set.h"
#include "common/batch.h"
#include "common/mutex.h"

namespace ckpt {

// Threads: any.
class Changes {
 public:
  void add(const std::vector<Extent>& extents) CKPT_EXCLUDES(mutex_) {
    const MutexLock lock(mutex_);
    for (const Extent& extent : extents) {
      blocks_.add(blocks_of(ByteRange{extent.offset, extent.length}));
    }
  }
  // All since the last call.
  BlockSet take() CKPT_EXCLUDES(mutex_) {
    const MutexLock lock(mutex_);
    return std::exchange(blocks_, {});
  }

 private:
  Mutex mutex_;
  BlockSet blocks_ CKPT_GUARDED_BY(mutex_);
};

}  // namespace ckpt
