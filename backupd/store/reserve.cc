// SPDX-License-Identifier: Apache-2.0
#include "backupd/store/reserve.h"

#include <algorithm>

namespace ckpt {
namespace {

constexpr char kReserveName[] = "reserve";

}  // namespace

uint64_t reserve_bytes(uint64_t size_bytes) {
  const uint64_t share = size_bytes / 20;
  return std::min(kReserveBytesMax, share / kBlockBytes * kBlockBytes);
}

Result<> Reserve::make() {
  if (is_made()) {
    return {};
  }
  // One that an earlier process left may or may not have its space: made anew.
  CKPT_TRY(remove());
  CKPT_ASSIGN(const uint64_t free_bytes, directory_.free_bytes());
  if (free_bytes / 2 < bytes_) {
    return fail(ErrorKind::kNoSpace, directory_.path() + ": no room for the reserve of " +
                                         std::to_string(bytes_) + " bytes");
  }
  CKPT_ASSIGN(auto file, directory_.open(kReserveName, OpenMode::kCreate));
  if (auto allocated = file->allocate({0, bytes_}); !allocated) {
    CKPT_TRY(directory_.remove(kReserveName));
    return allocated;
  }
  file_ = std::move(file);
  return {};
}

Result<> Reserve::remove() {
  file_.reset();  // an open file would keep its space
  auto removed = directory_.remove(kReserveName);
  return removed || removed.error().kind == ErrorKind::kNotFound ? Result<>() : removed;
}

}  // namespace ckpt
