// SPDX-License-Identifier: Apache-2.0
// One bit a block, with a flag a region that says where to look.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <optional>
#include <vector>

#include "common/block.h"
#include "common/bytes.h"

namespace ckpt {

// How a disk is divided.
struct Geometry {
  uint64_t size_bytes = 0;
  uint64_t region_bytes = 0;  // a multiple of 64 blocks

  [[nodiscard]] uint64_t blocks() const { return block_count(size_bytes); }
  [[nodiscard]] uint64_t blocks_per_region() const { return region_bytes / kBlockBytes; }
  [[nodiscard]] uint64_t regions() const {
    return size_bytes / region_bytes + (size_bytes % region_bytes != 0 ? 1 : 0);
  }
  [[nodiscard]] BlockRange region_blocks(uint64_t region) const;
  // The regions that blocks touch, half-open.
  [[nodiscard]] BlockRange regions_of(BlockRange blocks) const;
  // Bytes of a map of all blocks, in whole words.
  [[nodiscard]] uint64_t map_bytes() const { return (blocks() + 63) / 64 * 8; }

  // 4 MiB a region, or more, so that a disk has at most 64 Ki.
  static Geometry of_disk(uint64_t size_bytes);
};

// A set of blocks.
//
// Lifetime: works on memory of its caller's, which outlives it: so a map can lie in shared memory.
// Threads:  all methods from any thread, at once. set() and take() of one block must be ordered by
// its
//           block lock where the order matters; a bit is never lost either way.
class ChangeMap {
 public:
  // memory: geometry.map_bytes() bytes, 8-aligned. Bits that are set in it count after
  // count_bits().
  ChangeMap(const Geometry& geometry, ByteSpan memory);

  void set(BlockRange blocks);
  // Clears the bits of blocks; the runs that were set, ascending, are appended to taken.
  void take(BlockRange blocks, std::vector<BlockRange>& taken);
  [[nodiscard]] bool any(BlockRange blocks) const;
  // The same, without touching the memory of regions that hold no bits: it may not be backed. Not
  // for a map that is tidied meanwhile.
  [[nodiscard]] bool any_flagged(BlockRange blocks) const;
  // The first run of set bits that begins in blocks, cut off at their end.
  [[nodiscard]] std::optional<BlockRange> next_run(BlockRange blocks) const;
  // The region at or after `from` that may hold a set bit.
  [[nodiscard]] std::optional<uint64_t> next_region(uint64_t from) const;
  // Takes region by region off the list of those that may hold bits, if it holds none.
  void tidy(uint64_t region);
  [[nodiscard]] bool region_empty(uint64_t region) const;
  // How many bits are set. Exact while nobody changes the map.
  [[nodiscard]] uint64_t count() const { return count_.load(); }
  [[nodiscard]] uint64_t count_in(uint64_t region) const;
  // Moves all bits of another map of the same geometry into this one.
  void take_all(ChangeMap& other);
  // Adds all bits of another map of the same geometry.
  void add_all(const ChangeMap& other);
  void clear();
  // Of an empty map that nobody changes: private memory goes back to the system, shared memory
  // stays allocated and is mapped again when it is touched. Little memory is kept.
  void shed_memory();
  // Counts the bits that an earlier process left in these bytes of the memory.
  void count_bits(ByteRange bytes);
  // Calls visit with every run, ascending; runs end at regions.
  void for_each_run(const std::function<void(BlockRange)>& visit) const;
  // All of them, or, if they are more than `most`, the regions that hold them: a superset.
  [[nodiscard]] std::vector<BlockRange> runs(size_t most) const;
  [[nodiscard]] const Geometry& geometry() const { return geometry_; }

 private:
  using Word = std::atomic<uint64_t>;
  [[nodiscard]] Word& word(uint64_t index) const { return words_[index]; }
  void flag(BlockRange blocks);

  Geometry geometry_;
  Word* words_;
  std::atomic<uint64_t> count_{0};
  std::unique_ptr<std::atomic<uint8_t>[]> flags_;  // a region each: it may hold bits
};

// Private memory for a map, zeroed, backed only where touched.
class MapMemory {
 public:
  explicit MapMemory(uint64_t bytes);
  [[nodiscard]] ByteSpan bytes() { return {memory_.get(), bytes_}; }

 private:
  struct Free {
    void operator()(std::byte* memory) const;
  };
  std::unique_ptr<std::byte[], Free> memory_;
  uint64_t bytes_;
};

}  // namespace ckpt
