// SPDX-License-Identifier: Apache-2.0
// Lost durability is final: the first such error is kept, and refuses all later work.
#pragma once

#include <optional>

#include "common/mutex.h"
#include "common/result.h"

namespace ckpt {

// Threads: all methods from any thread.
class Latch {
 public:
  // The error that was set first, if any.
  Result<> check() const CKPT_EXCLUDES(mutex_);
  // Keeps the error, unless there is one already or it is want of space, from which there is a way
  // back. Returns the error given.
  Unexpected set(const Error& error) CKPT_EXCLUDES(mutex_);

 private:
  mutable Mutex mutex_;
  std::optional<Error> error_ CKPT_GUARDED_BY(mutex_);
};

// What a sync returned. Even ENOSPC is then no want of space that could pass: what was written
// before may be lost, and a second sync would not say so.
Result<> final_failure(Result<> synced);

}  // namespace ckpt
