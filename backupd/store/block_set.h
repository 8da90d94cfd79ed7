// SPDX-License-Identifier: Apache-2.0
// A set of blocks, small in memory when it is sparse and when it is full.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <vector>

#include "common/block.h"

namespace ckpt {

// Chunks of 64 MiB of disk, each a few runs or, when these are many, one bit a block. An empty
// chunk costs nothing. So a full 1 TiB disk costs about 2 MiB, 1 GiB of blocks scattered over it 3
// MiB, and nothing more than 34 MiB.
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
  // How many blocks within a range are in the set.
  [[nodiscard]] uint64_t count(BlockRange within) const;

 private:
  static constexpr uint64_t kChunkBlocks = 16384;

  // The blocks of one chunk, counted from its start.
  class Chunk {
   public:
    void change(BlockRange blocks, bool present);
    [[nodiscard]] bool empty() const { return bits_ == nullptr && runs_.empty(); }
    // The first block at or after block whose membership is not present; else the chunk's end.
    [[nodiscard]] uint64_t run_end(uint64_t block, bool present) const;

   private:
    static constexpr uint64_t kWordBits = 64;
    static constexpr size_t kRunsMax = 256;  // half the room of the bits
    using Bits = std::array<uint64_t, kChunkBlocks / kWordBits>;
    struct Run {
      uint16_t first;
      uint16_t end;
    };

    void add_run(BlockRange blocks);
    void remove_run(BlockRange blocks);
    void change_bits(BlockRange blocks, bool present);
    void spread_if_many();
    void gather_if_even();
    [[nodiscard]] uint64_t run_end_of_bits(uint64_t block, bool present) const;

    std::vector<Run> runs_;       // ascending, with a gap between any two; unless there are
    std::unique_ptr<Bits> bits_;  // bits: neither none nor all of them set
  };

  [[nodiscard]] uint64_t run_end(uint64_t block, uint64_t end, bool present) const;

  std::map<uint64_t, Chunk> chunks_;  // none is empty
};

}  // namespace ckpt
