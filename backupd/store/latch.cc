// SPDX-License-Identifier: Apache-2.0
#include "backupd/store/latch.h"

namespace ckpt {

Result<> Latch::check() const {
  const MutexLock lock(mutex_);
  return error_ ? Result<>(Unexpected(*error_)) : Result<>();
}

Unexpected Latch::set(const Error& error) {
  const MutexLock lock(mutex_);
  if (!error_ && error.kind != ErrorKind::kNoSpace) {
    error_ = error;
  }
  return Unexpected(error);
}

Result<> final_failure(Result<> synced) {
  if (synced || synced.error().kind != ErrorKind::kNoSpace) {
    return synced;
  }
  Error error = synced.error();
  error.kind = ErrorKind::kIo;
  return Unexpected(error);
}

}  // namespace ckpt
