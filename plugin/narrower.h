// SPDX-License-Identifier: Apache-2.0
// Makes the changed map smaller: what is found equal to the store's checkpoint is not changed.
#pragma once

#include "common/store_link.h"
#include "plugin/disk.h"

namespace ckpt {

// Step functions, by the pump. Only while nothing has been sent in the session, no epoch is closed,
// and the store is asked by nobody else: then an unshipped bit cleared here is set again by a write
// alone.
class Narrower {
 public:
  // seed: of the digests by which blocks are compared; nobody who writes to the disk knows it.
  Narrower(Disk& disk, StoreLink& store, uint64_t seed) : disk_(disk), store_(store), seed_(seed) {}

  void start();
  void stop();
  // From any thread.
  [[nodiscard]] bool is_active() const { return active_.load(); }
  // Compares some regions. Clears written bits after a sync of the image only: what compared equal
  // in the page cache may be different on the disk.
  Result<> narrow_some();

 private:
  Result<bool> is_hole(BlockRange blocks, std::vector<BlockRange>& equal);
  Result<> compare_region(uint64_t region, std::vector<BlockRange>& equal);
  // theirs: the store's digests of these blocks.
  Result<> compare_chunk(BlockRange chunk, std::span<const Digest> theirs,
                         std::vector<BlockRange>& equal);
  [[nodiscard]] BlockRange next_question(BlockRange blocks) const;
  // Where the store has data next, from there on.
  Result<uint64_t> next_of_theirs(uint64_t offset);
  void clear_written(const std::vector<BlockRange>& equal);

  Disk& disk_;
  StoreLink& store_;
  const uint64_t seed_;
  std::atomic<bool> active_{false};
  uint64_t cursor_ = 0;  // the next region
  // The store was asked last: from the first offset it has no data before the second.
  ByteRange their_hole_{};
};

}  // namespace ckpt
