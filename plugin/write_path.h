// SPDX-License-Identifier: Apache-2.0
// The write path: requests to the primary image (design 3, "Write path").
#pragma once

#include <functional>

#include "plugin/disk.h"

namespace ckpt {

// Threads:    any number at once. Ranges must lie within the disk.
// Failure:    an error of the image is the client's; the blocks count as changed all the same.
// Durability: none before flush(), or with fua.
class WritePath {
 public:
  // on_full: the image's file system is full; frees the reserve and returns whether there was one.
  WritePath(Disk& disk, std::function<bool()> on_full)
      : disk_(disk), on_full_(std::move(on_full)) {}

  Result<> read(uint64_t offset, ByteSpan buffer) { return disk_.image.read(offset, buffer); }
  Result<> write(uint64_t offset, ConstByteSpan buffer, bool fua);
  // The range reads as zeroes afterwards; with punch its space is given back.
  Result<> zero(ByteRange range, bool punch, bool fua);
  Result<> flush() { return CKPT_PLANTED(flush_without_sync) ? Result<>() : disk_.sync_image(); }

 private:
  template <typename Change>
  Result<> change_piece(ByteRange piece, const Change& change);
  template <typename Change>
  Result<> change_image(const Change& change);
  void wake_shipper();
  void preserve(BlockRange blocks, const EpochObject& own);
  void note_heat(BlockRange blocks);
  void note_stall(SteadyTime since);

  Disk& disk_;
  std::function<bool()> on_full_;
};

}  // namespace ckpt
