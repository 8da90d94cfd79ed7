// SPDX-License-Identifier: Apache-2.0
#include "plugin/region_map.h"

#include <algorithm>

#include "common/checksum.h"

namespace ckpt {
namespace {

constexpr char kRegionsName[] = "regions";
constexpr char kRegionsTemporaryName[] = "regions.new";
constexpr uint32_t kRegionsMagic = 0x52504b43;  // "CKPR" in the order of the bytes
constexpr uint16_t kRegionsVersion = 1;
constexpr uint64_t kRegionsHeaderBytes = 4096;
// Neighbours marked ahead: as many as are marked just before, so that a sequential writer soon
// waits seldom; at least and at most so many. What is marked in vain is compared once after a
// crash.
constexpr uint64_t kAheadMin = 4;
constexpr uint64_t kAheadMax = 64;
constexpr uint8_t kIdleCalls = 2;

uint64_t bits_bytes(const Geometry& geometry) {
  return (geometry.regions() / 8 / kBlockBytes + 1) * kBlockBytes;
}

std::vector<std::byte> encode_header(const Uuid& volume, const Geometry& geometry) {
  Encoder encoder;
  encoder.put(kRegionsMagic);
  encoder.put(kRegionsVersion);
  encoder.put(uint16_t{0});
  encoder.put_array(volume.bytes);
  encoder.put(geometry.size_bytes);
  encoder.put(geometry.region_bytes);
  encoder.put_zeroes(20);
  encoder.put(crc32c(encoder.bytes()));
  encoder.put_zeroes(kRegionsHeaderBytes - encoder.size());
  return encoder.take();
}

void set_bit(std::vector<std::byte>& bits, uint64_t index, bool value) {
  const auto mask = static_cast<std::byte>(1U << (index % 8));
  bits[index / 8] = value ? bits[index / 8] | mask : bits[index / 8] & ~mask;
}

bool get_bit(const std::vector<std::byte>& bits, uint64_t index) {
  return (bits[index / 8] & static_cast<std::byte>(1U << (index % 8))) != std::byte{0};
}

}  // namespace

RegionMap::RegionMap(std::unique_ptr<File> file, const Geometry& geometry)
    : file_(std::move(file)),
      geometry_(geometry),
      pins_(std::make_unique<std::atomic<uint32_t>[]>(geometry.regions())),
      marked_(std::make_unique<std::atomic<uint8_t>[]>(geometry.regions())),
      used_(std::make_unique<std::atomic<uint8_t>[]>(geometry.regions())),
      bits_(bits_bytes(geometry)) {}

Result<std::unique_ptr<RegionMap>> RegionMap::create(Directory& directory, const Uuid& volume,
                                                     const Geometry& geometry, Marks marks) {
  if (auto removed = directory.remove(kRegionsTemporaryName);
      !removed && removed.error().kind != ErrorKind::kNotFound) {
    return Unexpected(removed.error());
  }
  CKPT_ASSIGN(auto file, directory.open(kRegionsTemporaryName, OpenMode::kCreate));
  const auto fill = marks == Marks::kAll ? std::byte{0xff} : std::byte{0};
  const std::vector<std::byte> bits(bits_bytes(geometry), fill);
  CKPT_TRY(file->allocate({0, kRegionsHeaderBytes + bits.size()}));
  CKPT_TRY(file->write(0, encode_header(volume, geometry)));
  CKPT_TRY(file->write(kRegionsHeaderBytes, bits));
  CKPT_TRY(file->sync());
  CKPT_TRY(directory.rename(kRegionsTemporaryName, kRegionsName));
  CKPT_TRY(directory.sync());
  return open(directory, volume, geometry);
}

Result<std::unique_ptr<RegionMap>> RegionMap::open(Directory& directory, const Uuid& volume,
                                                   const Geometry& geometry) {
  CKPT_ASSIGN(auto file, directory.open(kRegionsName, OpenMode::kReadWrite));
  // What a killed process wrote may be in the page cache only.
  if (!CKPT_PLANTED(recover_without_sync)) {
    CKPT_TRY(file->sync());
  }
  CKPT_ASSIGN(const uint64_t size_bytes, file->size());
  if (size_bytes != kRegionsHeaderBytes + bits_bytes(geometry)) {
    return fail(ErrorKind::kCorrupt, directory.path() + "/regions: not of the right size");
  }
  std::vector<std::byte> header(kRegionsHeaderBytes);
  CKPT_TRY(file->read(0, header));
  if (header != encode_header(volume, geometry)) {
    return fail(ErrorKind::kCorrupt, directory.path() + "/regions: of another volume, or damaged");
  }
  auto map = std::unique_ptr<RegionMap>(new RegionMap(std::move(file), geometry));
  const MutexLock lock(map->file_mutex_);
  CKPT_TRY(map->file_->read(kRegionsHeaderBytes, map->bits_));
  for (uint64_t region = 0; region < geometry.regions(); ++region) {
    map->marked_[region].store(get_bit(map->bits_, region) ? 1 : 0);
  }
  return map;
}

bool RegionMap::all_marked(BlockRange regions) const {
  for (uint64_t region = regions.first; region < regions.end; ++region) {
    if (!is_marked(region)) {
      return false;
    }
  }
  return true;
}

Result<> RegionMap::pin(BlockRange blocks) {
  const BlockRange regions = geometry_.regions_of(blocks);
  // Pin, then look: unmark_some() clears the mark, then looks at the pins. One sees the other.
  for (uint64_t region = regions.first; region < regions.end; ++region) {
    ++pins_[region];
    if (used_[region].load(std::memory_order_relaxed) != kIdleCalls) {
      used_[region].store(kIdleCalls, std::memory_order_relaxed);
    }
  }
  sim_point();
  if (all_marked(regions)) {
    return {};
  }
  auto marked = mark(regions);
  if (!marked) {
    unpin(blocks);
  }
  return marked;
}

void RegionMap::unpin(BlockRange blocks) {
  const BlockRange regions = geometry_.regions_of(blocks);
  for (uint64_t region = regions.first; region < regions.end; ++region) {
    --pins_[region];
  }
}

Result<> RegionMap::mark(BlockRange regions) {
  want(regions);
  const MutexLock lock(file_mutex_);
  // Whoever had the file before may have marked these as well: all who wait share the next sync.
  if (all_marked(regions)) {
    CKPT_PROBE(sync_of_marks_was_shared);
  }
  while (!all_marked(regions)) {
    want(regions);
    CKPT_TRY(write_marks(take_wanted()));
  }
  return {};
}

Result<> RegionMap::mark_each(const std::set<uint64_t>& regions) {
  std::set<uint64_t> unmarked;
  for (const uint64_t region : regions) {
    if (!is_marked(region)) {
      unmarked.insert(region);
    }
  }
  const MutexLock lock(file_mutex_);
  return unmarked.empty() ? Result<>() : write_marks(unmarked);
}

uint64_t RegionMap::ahead_of(uint64_t region) const {
  uint64_t before = 0;
  while (before < kAheadMax && before < region && is_marked(region - before - 1)) {
    ++before;
  }
  return std::max(before, kAheadMin);
}

void RegionMap::want(BlockRange regions) {
  const MutexLock lock(wanted_mutex_);
  const uint64_t end = std::min(regions.end + ahead_of(regions.first), geometry_.regions());
  for (uint64_t region = regions.first; region < end; ++region) {
    if (!is_marked(region)) {
      wanted_.insert(region);
    }
  }
}

std::set<uint64_t> RegionMap::take_wanted() {
  const MutexLock lock(wanted_mutex_);
  return std::exchange(wanted_, {});
}

Result<> RegionMap::write_marks(const std::set<uint64_t>& regions) {
  for (const uint64_t region : regions) {
    if (hooks_.prepare) {
      CKPT_TRY(hooks_.prepare({region, region + 1}));
    }
    set_bit(bits_, region, true);
  }
  if (auto written = write_bits(); !written) {
    CKPT_PROBE(marks_could_not_be_written);
    CKPT_TRY(hooks_.on_failure(written.error()));
    everything_.store(true);
    return {};
  }
  for (const uint64_t region : regions) {
    marked_[region].store(1);
  }
  return {};
}

Result<> RegionMap::write_bits() {
  CKPT_TRY(file_->write(kRegionsHeaderBytes, bits_));
  return CKPT_PLANTED(mark_not_synced) ? Result<>() : file_->sync();
}

bool RegionMap::in_use(uint64_t region) const {
  return pins_[region].load() != 0 || hooks_.has_changes(region);
}

std::vector<uint64_t> RegionMap::pick_idle() const {
  std::vector<uint64_t> idle;
  for (uint64_t region = 0; region < geometry_.regions(); ++region) {
    if (marked_[region].load() == 0) {
      continue;
    }
    const uint8_t left = used_[region].load(std::memory_order_relaxed);
    if (left > 0) {
      used_[region].store(static_cast<uint8_t>(left - 1), std::memory_order_relaxed);
    } else if (!in_use(region)) {
      idle.push_back(region);
    }
  }
  return idle;
}

Result<> RegionMap::unmark_some() {
  const MutexLock lock(file_mutex_);
  if (everything_.load()) {
    return {};
  }
  bool any = false;
  for (const uint64_t region : pick_idle()) {
    marked_[region].store(0);
    sim_point();
    // Whoever pinned it before it was cleared relied on the mark: look again.
    if (in_use(region)) {
      CKPT_PROBE(region_pinned_while_it_was_unmarked);
      marked_[region].store(1);
    } else {
      CKPT_PROBE(region_was_unmarked);
      set_bit(bits_, region, false);
      any = true;
    }
  }
  return any ? write_bits() : Result<>();
}

uint64_t RegionMap::marked_count() const {
  uint64_t count = 0;
  for (uint64_t region = 0; region < geometry_.regions(); ++region) {
    count += is_marked(region) ? 1 : 0;
  }
  return count;
}

}  // namespace ckpt
