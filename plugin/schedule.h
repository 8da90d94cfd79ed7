// SPDX-License-Identifier: Apache-2.0
// When checkpoint-interval=, or `run --every`, wants checkpoints: at planned times, so that one
// that comes late does not move those after it.
#pragma once

#include <algorithm>

#include "common/clock.h"

namespace ckpt {

// Threads: one.
class Schedule {
 public:
  // interval 0: never.
  Schedule(std::chrono::nanoseconds interval, SteadyTime begin)
      : interval_(interval), next_(begin + interval) {}

  // How many planned times have passed since the last call.
  uint64_t passed(SteadyTime now) {
    if (interval_.count() == 0 || now < next_) {
      return 0;
    }
    const int64_t count = (now - next_) / interval_ + 1;
    next_ += interval_ * count;
    return static_cast<uint64_t>(count);
  }
  // How long until the next; far away if there is none.
  [[nodiscard]] std::chrono::nanoseconds left(SteadyTime now) const {
    return interval_.count() == 0 ? std::chrono::nanoseconds::max()
                                  : std::max(next_ - now, std::chrono::nanoseconds(0));
  }

 private:
  const std::chrono::nanoseconds interval_;
  SteadyTime next_;
};

}  // namespace ckpt
