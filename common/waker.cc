// SPDX-License-Identifier: Apache-2.0
#include "common/waker.h"

namespace ckpt {

void Waker::wake() {
  const MutexLock lock(mutex_);
  awake_.store(true);
  woken_.notify_all();
}

void Waker::wait(std::chrono::nanoseconds time) {
  const MutexLock lock(mutex_);
  if (!awake_.load()) {
    woken_.wait_for(mutex_, time);
  }
  awake_.store(false);
}

}  // namespace ckpt
