// SPDX-License-Identifier: Apache-2.0
// Shared memory as files of a tmpfs directory.
#pragma once

#include "common/fd.h"
#include "common/file.h"

namespace ckpt {

class TmpfsMemoryStore : public SharedMemoryStore {
 public:
  // The first of $XDG_RUNTIME_DIR, /run/ckpt and /dev/shm that is on a tmpfs and writable.
  static Result<std::unique_ptr<TmpfsMemoryStore>> open();

  Result<std::unique_ptr<SharedMemory>> create(const std::string& name, uint64_t bytes) override;
  Result<std::unique_ptr<SharedMemory>> open(const std::string& name, uint64_t bytes) override;
  Result<> remove(const std::string& name) override;
  [[nodiscard]] const std::string& path() const { return path_; }

 private:
  TmpfsMemoryStore(UniqueFd fd, std::string path) : fd_(std::move(fd)), path_(std::move(path)) {}

  UniqueFd fd_;
  std::string path_;
};

}  // namespace ckpt
