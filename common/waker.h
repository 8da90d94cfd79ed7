// SPDX-License-Identifier: Apache-2.0
// How a pump sleeps until there is work for it.
#pragma once

#include <atomic>

#include "common/mutex.h"

namespace ckpt {

// Threads: any.
class Waker {
 public:
  void wake();
  // Returns at once if somebody woke it since the last call; else waits, at most so long.
  void wait(std::chrono::nanoseconds time);
  [[nodiscard]] bool is_awake() const { return awake_.load(); }

 private:
  std::atomic<bool> awake_{false};
  Mutex mutex_;
  CondVar woken_;
};

}  // namespace ckpt
