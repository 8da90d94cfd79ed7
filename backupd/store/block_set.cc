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

void BlockSet::Chunk::change(BlockRange blocks, bool present) {
  if (bits_ != nullptr) {
    change_bits(blocks, present);
    gather_if_even();
    return;
  }
  present ? add_run(blocks) : remove_run(blocks);
  spread_if_many();
}

// Joins all runs that it touches.
void BlockSet::Chunk::add_run(BlockRange blocks) {
  const auto from = std::ranges::lower_bound(runs_, blocks.first, {}, &Run::end);
  const auto to = std::ranges::upper_bound(from, runs_.end(), blocks.end, {}, &Run::first);
  Run run{static_cast<uint16_t>(blocks.first), static_cast<uint16_t>(blocks.end)};
  if (from == to) {
    runs_.insert(from, run);
    return;
  }
  run.first = std::min(run.first, from->first);
  run.end = std::max(run.end, std::prev(to)->end);
  *from = run;
  runs_.erase(std::next(from), to);
}

// What is left of the first and the last run that it touches.
void BlockSet::Chunk::remove_run(BlockRange blocks) {
  const auto from = std::ranges::upper_bound(runs_, blocks.first, {}, &Run::end);
  const auto to = std::ranges::lower_bound(from, runs_.end(), blocks.end, {}, &Run::first);
  if (from == to) {
    return;
  }
  const Run before{from->first, static_cast<uint16_t>(blocks.first)};
  const Run after{static_cast<uint16_t>(blocks.end), std::prev(to)->end};
  auto place = runs_.erase(from, to);
  if (after.first < after.end) {
    place = runs_.insert(place, after);
  }
  if (before.first < before.end) {
    runs_.insert(place, before);
  }
}

void BlockSet::Chunk::spread_if_many() {
  if (runs_.size() <= kRunsMax) {
    return;
  }
  bits_ = std::make_unique<Bits>();
  for (const Run& run : runs_) {
    change_bits({run.first, run.end}, true);
  }
  std::vector<Run>().swap(runs_);  // and its memory
}

void BlockSet::Chunk::change_bits(BlockRange blocks, bool present) {
  for (uint64_t block = blocks.first; block < blocks.end;) {
    const uint64_t bit = block % kWordBits;
    const uint64_t count = std::min(kWordBits - bit, blocks.end - block);
    uint64_t& word = (*bits_)[block / kWordBits];
    word = present ? word | mask(bit, bit + count) : word & ~mask(bit, bit + count);
    block += count;
  }
}

// All or none of them set: a run, or nothing.
void BlockSet::Chunk::gather_if_even() {
  const uint64_t first = bits_->front();
  if ((first != 0 && first != ~uint64_t{0}) ||
      !std::ranges::all_of(*bits_, [first](uint64_t word) { return word == first; })) {
    return;
  }
  bits_.reset();
  if (first != 0) {
    runs_.push_back({0, kChunkBlocks});
  }
}

uint64_t BlockSet::Chunk::run_end(uint64_t block, bool present) const {
  if (bits_ != nullptr) {
    return run_end_of_bits(block, present);
  }
  const auto run = std::ranges::upper_bound(runs_, block, {}, &Run::end);
  const bool is_in = run != runs_.end() && run->first <= block;
  if (is_in != present) {
    return block;
  }
  if (is_in) {
    return run->end;
  }
  return run == runs_.end() ? kChunkBlocks : run->first;
}

uint64_t BlockSet::Chunk::run_end_of_bits(uint64_t block, bool present) const {
  while (block < kChunkBlocks) {
    const uint64_t word = (*bits_)[block / kWordBits];
    const uint64_t bit = block % kWordBits;
    const uint64_t others = (present ? ~word : word) & mask(bit, kWordBits);
    if (others != 0) {
      return block - bit + static_cast<uint64_t>(std::countr_zero(others));
    }
    block += kWordBits - bit;
  }
  return kChunkBlocks;
}

void BlockSet::add(BlockRange blocks) {
  for (uint64_t block = blocks.first; block < blocks.end;) {
    const uint64_t begin = block / kChunkBlocks * kChunkBlocks;
    const uint64_t end = std::min(blocks.end, begin + kChunkBlocks);
    chunks_[block / kChunkBlocks].change({block - begin, end - begin}, true);
    block = end;
  }
}

void BlockSet::remove(BlockRange blocks) {
  if (blocks.empty()) {
    return;
  }
  // Only chunks that exist: the range may be a whole disk.
  auto entry = chunks_.lower_bound(blocks.first / kChunkBlocks);
  while (entry != chunks_.end() && entry->first * kChunkBlocks < blocks.end) {
    const uint64_t begin = entry->first * kChunkBlocks;
    const uint64_t first = std::max(blocks.first, begin) - begin;
    entry->second.change({first, std::min(blocks.end - begin, kChunkBlocks)}, false);
    entry = entry->second.empty() ? chunks_.erase(entry) : std::next(entry);
  }
}

// The first block at or after block, but before end, whose membership is not present; else end.
uint64_t BlockSet::run_end(uint64_t block, uint64_t end, bool present) const {
  auto chunk = chunks_.lower_bound(block / kChunkBlocks);
  while (block < end) {
    const uint64_t begin = block / kChunkBlocks * kChunkBlocks;
    if (chunk == chunks_.end() || chunk->first * kChunkBlocks != begin) {
      if (present) {
        return block;
      }
      block = chunk == chunks_.end() ? end : chunk->first * kChunkBlocks;
      continue;
    }
    block = begin + chunk->second.run_end(block - begin, present);
    if (block < begin + kChunkBlocks) {
      break;
    }
    ++chunk;
  }
  return std::min(block, end);
}

std::optional<BlockRange> BlockSet::find(BlockRange within, bool present) const {
  const uint64_t first = run_end(within.first, within.end, !present);
  if (first >= within.end) {
    return std::nullopt;
  }
  return BlockRange{first, run_end(first, within.end, present)};
}

uint64_t BlockSet::count(BlockRange within) const {
  uint64_t count = 0;
  while (const auto run = find(within, true)) {
    count += run->count();
    within.first = run->end;
  }
  return count;
}

}  // namespace ckpt
