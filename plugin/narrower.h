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
  Narrower(Disk& disk, StoreLink& store) : disk_(disk), store_(store) {}

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
  Result<> compare_chunk(BlockRange chunk, std::vector<BlockRange>& equal);
  void clear_written(const std::vector<BlockRange>& equal);

  Disk& disk_;
  StoreLink& store_;
  std::atomic<bool> active_{false};
  uint64_t cursor_ = 0;  // the next region
};

}  // namespace ckpt
