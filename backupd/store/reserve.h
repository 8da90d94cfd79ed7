// SPDX-License-Identifier: Apache-2.0
// Space kept back, to be given up when the file system that the primary shares with the store is
// full.
#pragma once

#include <memory>

#include "common/file.h"

namespace ckpt {

// 5 % of a volume's size, at most so much.
inline constexpr uint64_t kReserveBytesMax = uint64_t{1} << 30U;
uint64_t reserve_bytes(uint64_t size_bytes);

// The preallocated file `reserve`. It holds nothing, so its loss with power does no harm.
//
// Lifetime: the directory must outlive it.
// Threads:  one at a time.
class Reserve {
 public:
  Reserve(Directory& directory, uint64_t bytes) : directory_(directory), bytes_(bytes) {}
  // Makes it if there is twice the space, so that it never takes the last. kNoSpace.
  Result<> make();
  // Unlinks it.
  Result<> remove();
  [[nodiscard]] bool is_made() const { return file_ != nullptr || bytes_ == 0; }

 private:
  Directory& directory_;
  const uint64_t bytes_;
  std::unique_ptr<File> file_;
};

}  // namespace ckpt
