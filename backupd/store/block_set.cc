// SPDX-License-Identifier: Apache-2.0
#include "backupd/store/block_set.h"

#include <algorithm>
#include <bit>

namespace ckpt {
namespace {

// The bits [first, end) of a word; end is at most 64.
uint64_t mask(uint64_t first, uint64_t end) {
  const uint64_t below_end = end == 64 ? ~uint64_t{0} : (uint64_t{1} << end) - 1;
  return below_end & ~((uint64_t{1} << first) - 1);
}

}  // namespace

void BlockSet::add(BlockRange blocks) {
  for (uint64_t block = blocks.first; block < blocks.end;) {
    const uint64_t chunk = block / kChunkBlocks;
    const uint64_t end = std::min(blocks.end, (chunk + 1) * kChunkBlocks);
    change(chunk, {block, end}, true);
    block = end;
  }
}

void BlockSet::remove(BlockRange blocks) {
  if (blocks.empty()) {
    return;
  }
  // Only chunks that exist: the range may be a whole disk.
  auto next = chunks_.lower_bound(blocks.first / kChunkBlocks);
  while (next != chunks_.end() && next->first * kChunkBlocks < blocks.end) {
    const uint64_t chunk = next->first;
    ++next;
    change(chunk,
           {std::max(blocks.first, chunk * kChunkBlocks),
            std::min(blocks.end, (chunk + 1) * kChunkBlocks)},
           false);
  }
}

void BlockSet::change(uint64_t chunk, BlockRange blocks, bool present) {
  if (blocks.count() == kChunkBlocks) {
    if (present) {
      chunks_[chunk] = nullptr;
    } else {
      chunks_.erase(chunk);
    }
    return;
  }
  const auto [entry, is_new] = chunks_.try_emplace(chunk);
  if (!is_new && entry->second == nullptr && present) {
    return;
  }
  if (entry->second == nullptr) {
    entry->second = std::make_unique<Bits>();
    entry->second->fill(is_new ? 0 : ~uint64_t{0});
  }
  Bits& bits = *entry->second;
  for (uint64_t block = blocks.first; block < blocks.end;) {
    const uint64_t bit = block % kWordBits;
    const uint64_t count = std::min(kWordBits - bit, blocks.end - block);
    uint64_t& word = bits[block % kChunkBlocks / kWordBits];
    word = present ? word | mask(bit, bit + count) : word & ~mask(bit, bit + count);
    block += count;
  }
  if (std::ranges::all_of(bits, [](uint64_t word) { return word == ~uint64_t{0}; })) {
    entry->second = nullptr;
  } else if (std::ranges::all_of(bits, [](uint64_t word) { return word == 0; })) {
    chunks_.erase(entry);
  }
}

uint64_t BlockSet::run_end(uint64_t block, uint64_t end, bool present) const {
  auto chunk = chunks_.lower_bound(block / kChunkBlocks);
  while (block < end) {
    const bool is_absent = chunk == chunks_.end() || chunk->first != block / kChunkBlocks;
    if (is_absent) {
      if (present) {
        return block;
      }
      block = chunk == chunks_.end() ? end : chunk->first * kChunkBlocks;
      continue;
    }
    if (chunk->second == nullptr) {
      if (!present) {
        return block;
      }
      block = (chunk->first + 1) * kChunkBlocks;
    } else {
      const uint64_t word = (*chunk->second)[block % kChunkBlocks / kWordBits];
      const uint64_t bit = block % kWordBits;
      const uint64_t others = (present ? ~word : word) & mask(bit, kWordBits);
      if (others != 0) {
        return std::min(end, block - bit + static_cast<uint64_t>(std::countr_zero(others)));
      }
      block += kWordBits - bit;
    }
    if (block % kChunkBlocks == 0) {
      ++chunk;
    }
  }
  return end;
}

std::optional<BlockRange> BlockSet::find(BlockRange within, bool present) const {
  const uint64_t first = run_end(within.first, within.end, !present);
  if (first >= within.end) {
    return std::nullopt;
  }
  return BlockRange{first, run_end(first, within.end, present)};
}

}  // namespace ckpt
