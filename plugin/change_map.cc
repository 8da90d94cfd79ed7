// SPDX-License-Identifier: Apache-2.0
#include "plugin/change_map.h"

#include <sys/mman.h>

#include <algorithm>
#include <bit>
#include <cstdlib>

#include "common/mutex.h"
#include "common/result.h"

namespace ckpt {
namespace {

constexpr uint64_t kRegionsMax = 65536;
constexpr uint64_t kRegionBytesMin = uint64_t{4} << 20U;
constexpr uint64_t kPageBytes = 4096;
constexpr uint64_t kShedBytesMin = uint64_t{1} << 20U;  // of a disk of 32 GiB

static_assert(sizeof(std::atomic<uint64_t>) == sizeof(uint64_t));
static_assert(std::atomic<uint64_t>::is_always_lock_free);

// The bits [first, end) of the word that starts at block `base`.
uint64_t mask_of(BlockRange blocks, uint64_t base) {
  const uint64_t from = blocks.first > base ? blocks.first - base : 0;
  const uint64_t to = std::min<uint64_t>(64, blocks.end - base);
  const uint64_t below = to == 64 ? ~uint64_t{0} : (uint64_t{1} << to) - 1;
  return below & ~((uint64_t{1} << from) - 1);
}

// Appends the runs of set bits in a word, joining a run that goes on from the word before.
void append_runs(uint64_t bits, uint64_t base, std::vector<BlockRange>& runs) {
  while (bits != 0) {
    const auto first = static_cast<uint64_t>(std::countr_zero(bits));
    const auto length = static_cast<uint64_t>(std::countr_one(bits >> first));
    if (!runs.empty() && runs.back().end == base + first) {
      runs.back().end += length;
    } else {
      runs.push_back({base + first, base + first + length});
    }
    const uint64_t end = first + length;
    bits = end == 64 ? 0 : bits & (~uint64_t{0} << end);
  }
}

}  // namespace

BlockRange Geometry::region_blocks(uint64_t region) const {
  const uint64_t first = region * blocks_per_region();
  return {first, std::min(first + blocks_per_region(), blocks())};
}

BlockRange Geometry::regions_of(BlockRange range) const {
  return {range.first / blocks_per_region(), (range.end - 1) / blocks_per_region() + 1};
}

Geometry Geometry::of_disk(uint64_t size_bytes) {
  Geometry geometry{size_bytes, kRegionBytesMin};
  while (geometry.regions() > kRegionsMax) {
    geometry.region_bytes *= 2;
  }
  return geometry;
}

ChangeMap::ChangeMap(const Geometry& geometry, ByteSpan memory)
    : geometry_(geometry),
      // The memory is aligned and lives longer: std::atomic<uint64_t> has the layout of uint64_t.
      words_(reinterpret_cast<Word*>(memory.data())),
      flags_(std::make_unique<std::atomic<uint8_t>[]>(geometry.regions())) {
  CKPT_CHECK(memory.size() >= geometry.map_bytes());
  CKPT_CHECK(geometry.blocks_per_region() % 64 == 0);
}

void ChangeMap::flag(BlockRange blocks) {
  const BlockRange regions = geometry_.regions_of(blocks);
  for (uint64_t region = regions.first; region < regions.end; ++region) {
    if (flags_[region].load() == 0) {
      flags_[region].store(1);
    }
  }
}

void ChangeMap::set(BlockRange blocks) {
  uint64_t added = 0;
  for (uint64_t base = blocks.first / 64 * 64; base < blocks.end; base += 64) {
    const uint64_t mask = mask_of(blocks, base);
    if ((word(base / 64).load() & mask) != mask) {
      const uint64_t before = word(base / 64).fetch_or(mask);
      added += static_cast<uint64_t>(std::popcount(mask & ~before));
    }
  }
  // After the bits: tidy() clears the flag first and looks at the bits then.
  flag(blocks);
  if (added != 0) {
    count_ += added;
  }
}

void ChangeMap::take(BlockRange blocks, std::vector<BlockRange>& taken) {
  uint64_t removed = 0;
  for (uint64_t base = blocks.first / 64 * 64; base < blocks.end; base += 64) {
    const uint64_t mask = mask_of(blocks, base);
    if ((word(base / 64).load() & mask) == 0) {
      continue;
    }
    const uint64_t bits = word(base / 64).fetch_and(~mask) & mask;
    removed += static_cast<uint64_t>(std::popcount(bits));
    append_runs(bits, base, taken);
  }
  count_ -= removed;
}

bool ChangeMap::any(BlockRange blocks) const {
  for (uint64_t base = blocks.first / 64 * 64; base < blocks.end; base += 64) {
    if ((word(base / 64).load() & mask_of(blocks, base)) != 0) {
      return true;
    }
  }
  return false;
}

bool ChangeMap::any_flagged(BlockRange blocks) const {
  const BlockRange regions = geometry_.regions_of(blocks);
  for (uint64_t region = regions.first; region < regions.end; ++region) {
    const BlockRange all = geometry_.region_blocks(region);
    const BlockRange part{std::max(blocks.first, all.first), std::min(blocks.end, all.end)};
    if (flags_[region].load() != 0 && any(part)) {
      return true;
    }
  }
  return false;
}

std::optional<BlockRange> ChangeMap::next_run(BlockRange blocks) const {
  std::vector<BlockRange> runs;
  for (uint64_t base = blocks.first / 64 * 64; base < blocks.end; base += 64) {
    const uint64_t bits = word(base / 64).load() & mask_of(blocks, base);
    append_runs(bits, base, runs);
    const bool goes_on = !runs.empty() && runs.front().end == base + 64;
    if (!runs.empty() && !goes_on) {
      return runs.front();
    }
  }
  return runs.empty() ? std::nullopt : std::optional(runs.front());
}

std::optional<uint64_t> ChangeMap::next_region(uint64_t from) const {
  for (uint64_t region = from; region < geometry_.regions(); ++region) {
    if (flags_[region].load() != 0) {
      return region;
    }
  }
  return std::nullopt;
}

void ChangeMap::tidy(uint64_t region) {
  flags_[region].store(0);
  if (!region_empty(region)) {
    flags_[region].store(1);
  }
}

bool ChangeMap::region_empty(uint64_t region) const {
  return !any(geometry_.region_blocks(region));
}

uint64_t ChangeMap::count_in(uint64_t region) const {
  const BlockRange blocks = geometry_.region_blocks(region);
  uint64_t count = 0;
  for (uint64_t base = blocks.first; base < blocks.end; base += 64) {
    count += static_cast<uint64_t>(std::popcount(word(base / 64).load()));
  }
  return count;
}

void ChangeMap::take_all(ChangeMap& other) {
  std::vector<BlockRange> runs;
  for (auto region = other.next_region(0); region; region = other.next_region(*region + 1)) {
    runs.clear();
    other.take(geometry_.region_blocks(*region), runs);
    for (const BlockRange& run : runs) {
      set(run);
    }
    other.tidy(*region);
  }
}

void ChangeMap::add_all(const ChangeMap& other) {
  other.for_each_run([this](BlockRange run) { set(run); });
}

void ChangeMap::clear() {
  std::vector<BlockRange> runs;
  for (auto region = next_region(0); region; region = next_region(*region + 1)) {
    runs.clear();
    take(geometry_.region_blocks(*region), runs);
    tidy(*region);
  }
}

void ChangeMap::shed_memory() {
  CKPT_CHECK(count() == 0);
  const auto begin = reinterpret_cast<uintptr_t>(words_);
  const uintptr_t first = (begin + kPageBytes - 1) / kPageBytes * kPageBytes;
  const uintptr_t end = (begin + geometry_.map_bytes()) / kPageBytes * kPageBytes;
  if (end > first && end - first >= kShedBytesMin) {
    // Zeroes either way, so a failure changes nothing: madvise(2), MADV_DONTNEED.
    (void)madvise(reinterpret_cast<std::byte*>(words_) + (first - begin), end - first,
                  MADV_DONTNEED);
  }
}

void ChangeMap::count_bits(ByteRange bytes) {
  const uint64_t words = std::min(bytes.end() / 8, geometry_.map_bytes() / 8);
  for (uint64_t index = bytes.offset / 8; index < words; ++index) {
    const uint64_t bits = word(index).load();
    if (bits != 0) {
      count_ += static_cast<uint64_t>(std::popcount(bits));
      flag({index * 64, std::min(index * 64 + 64, geometry_.blocks())});
    }
  }
}

void ChangeMap::for_each_run(const std::function<void(BlockRange)>& visit) const {
  for (auto region = next_region(0); region; region = next_region(*region + 1)) {
    BlockRange rest = geometry_.region_blocks(*region);
    for (auto run = next_run(rest); run; run = next_run(rest)) {
      visit(*run);
      rest.first = run->end;
    }
  }
}

std::vector<BlockRange> ChangeMap::runs(size_t most) const {
  std::vector<BlockRange> runs;
  for_each_run([&runs](BlockRange run) { runs.push_back(run); });
  if (runs.size() <= most) {
    return runs;
  }
  runs.clear();
  for (auto region = next_region(0); region; region = next_region(*region + 1)) {
    runs.push_back(geometry_.region_blocks(*region));
  }
  return runs;
}

MapMemory::MapMemory(uint64_t bytes)
    // calloc takes fresh pages from the kernel for sizes like these: they are zero and not yet
    // there.
    : memory_(static_cast<std::byte*>(std::calloc(bytes / 8 + 1, 8))), bytes_(bytes) {
  CKPT_CHECK(memory_ != nullptr);
}

void MapMemory::Free::operator()(std::byte* memory) const { std::free(memory); }

}  // namespace ckpt
