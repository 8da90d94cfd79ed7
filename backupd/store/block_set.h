// SPDX-License-Identifier: Apache-2.0
// A set of blocks, small in memory when it is sparse and when it is full.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>

#include "common/block.h"

namespace ckpt {

// One bit a block, in chunks of 16 MiB of disk; an empty chunk costs nothing, a full one a map
// entry. So a full 1 TiB disk costs about 4 MiB, a scattered one at most 40 MiB.
//
// Threads: none of its own; the owner locks.
class BlockSet {
 public:
  void add(BlockRange blocks);
  void remove(BlockRange blocks);
  void clear() { chunks_.clear(); }
  [[nodiscard]] bool empty() const { return chunks_.empty(); }
  // The first run of blocks within a range that are (present) or are not in the set; cut off at the
  // range's end. Nothing: there is no such block.
  [[nodiscard]] std::optional<BlockRange> find(BlockRange within, bool present) const;

 private:
  static constexpr uint64_t kChunkBlocks = 4096;
  static constexpr uint64_t kWordBits = 64;
  using Bits = std::array<uint64_t, kChunkBlocks / kWordBits>;

  // The first block at or after block, but before end, whose membership is not present; else end.
  [[nodiscard]] uint64_t run_end(uint64_t block, uint64_t end, bool present) const;
  void change(uint64_t chunk, BlockRange blocks, bool present);

  std::map<uint64_t, std::unique_ptr<Bits>> chunks_;  // a null pointer: all of the chunk
};

}  // namespace ckpt
