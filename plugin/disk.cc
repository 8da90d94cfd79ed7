// SPDX-License-Identifier: Apache-2.0
#include "plugin/disk.h"

namespace ckpt {

void ImageTrouble::sync_failed(const std::string& why) {
  const MutexLock lock(mutex_);
  if (!suspect_.exchange(true)) {
    sync_ = "a sync of the image failed (" + why +
            "): what it holds is in doubt. Restart the server and roll back";
  }
}

void ImageTrouble::rolled_back() {
  const MutexLock lock(mutex_);
  suspect_.store(false);
  sync_.clear();
  read_.clear();
}

void ImageTrouble::unreadable(const Error& error) {
  const MutexLock lock(mutex_);
  read_ = "the image cannot be read (" + error.message() +
          "): there is no new checkpoint before it can, or before what is there was written again";
}

void ImageTrouble::all_read() {
  const MutexLock lock(mutex_);
  read_.clear();
}

std::string ImageTrouble::text() const {
  const MutexLock lock(mutex_);
  return sync_.empty() ? read_ : sync_;
}

}  // namespace ckpt
