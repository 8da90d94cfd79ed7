// SPDX-License-Identifier: Apache-2.0
// Parts of a checkpoint on their way from one store to a further one.
#pragma once

#include <utility>
#include <vector>

#include "common/block.h"
#include "common/bytes.h"
#include "common/mutex.h"
#include "common/result.h"

namespace ckpt {

// Bytes that may wait. More come only where the store changes faster than the further one takes
// them. As much again may be on its way.
inline constexpr uint64_t kRelayQueueBytesMax = uint64_t{32} << 20U;

// Whole blocks, or a hole; the disk's last block may be short.
struct RelayPart {
  ByteRange range;
  std::vector<std::byte> data{};  // empty: zeroes
  bool is_compared = false;       // the further store may have it already
};

// Threads: any.
class RelayQueue {
 public:
  // bytes_max: that may wait.
  explicit RelayQueue(uint64_t bytes_max) : bytes_max_(bytes_max) {}
  // kBusy: too much would wait. One part always may.
  Result<> put(RelayPart part) CKPT_EXCLUDES(mutex_) {
    const MutexLock lock(mutex_);
    const uint64_t bytes = sizeof(part) + part.data.size();
    if (bytes_ > 0 && bytes_ + bytes > bytes_max_) {
      return fail(ErrorKind::kBusy, "the further back-up is slower than what changes here");
    }
    bytes_ += bytes;
    parts_.push_back(std::move(part));
    return {};
  }
  // All, the oldest first.
  std::vector<RelayPart> take() CKPT_EXCLUDES(mutex_) {
    const MutexLock lock(mutex_);
    bytes_ = 0;
    return std::exchange(parts_, {});
  }
  [[nodiscard]] uint64_t bytes() const CKPT_EXCLUDES(mutex_) {
    const MutexLock lock(mutex_);
    return bytes_;
  }

 private:
  const uint64_t bytes_max_;
  mutable Mutex mutex_;
  std::vector<RelayPart> parts_ CKPT_GUARDED_BY(mutex_);
  uint64_t bytes_ CKPT_GUARDED_BY(mutex_) = 0;
};

}  // namespace ckpt
