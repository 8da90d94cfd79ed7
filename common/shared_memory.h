// SPDX-License-Identifier: Apache-2.0
// Shared memory as files of a tmpfs directory.
#pragma once

#include "common/fd.h"
#include "common/file.h"

namespace ckpt {

class TmpfsMemoryStore : public SharedMemoryStore {
 public:
  // In the first of $XDG_RUNTIME_DIR, /run/ckpt and /dev/shm that is on a tmpfs and writable. What is
  // there already is also found in the others: a server that systemd starts has no
  // $XDG_RUNTIME_DIR, and whoever looks after it has one.
  static Result<std::unique_ptr<TmpfsMemoryStore>> open();

  Result<std::unique_ptr<SharedMemory>> create(const std::string& name, uint64_t bytes) override;
  Result<std::unique_ptr<SharedMemory>> open(const std::string& name, uint64_t bytes) override;
  Result<> remove(const std::string& name) override;
  [[nodiscard]] const std::string& path() const { return places_.front().path; }

 private:
  struct Place {
    UniqueFd fd;
    std::string path;
  };

  explicit TmpfsMemoryStore(std::vector<Place> places) : places_(std::move(places)) {}

  std::vector<Place> places_;  // never empty; new ones are made in the first
};

}  // namespace ckpt
