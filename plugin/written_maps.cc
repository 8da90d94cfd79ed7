// SPDX-License-Identifier: Apache-2.0
#include "plugin/written_maps.h"

#include <algorithm>
#include <atomic>
#include <cstring>

namespace ckpt {
namespace {

constexpr uint64_t kMapPageBytes = 4096;
constexpr uint32_t kMapMagic = 0x4d504b43;  // "CKPM" in the order of the bytes
constexpr uint32_t kMapVersion = 1;

uint64_t in_pages(uint64_t bytes) {
  return (bytes + kMapPageBytes - 1) / kMapPageBytes * kMapPageBytes;
}

}  // namespace

// In memory of one machine, by one architecture: in the processor's own byte order.
struct WrittenMaps::Header {
  uint32_t magic;
  uint32_t version;
  uint8_t volume[16];
  uint64_t size_bytes;
  uint64_t region_bytes;
  std::atomic<uint64_t> exact;
  std::atomic<uint64_t> nonce;
  std::atomic<uint64_t> next_nonce;
  std::atomic<int64_t> last_write;
  std::atomic<uint32_t> writes_in_flight;
  std::atomic<uint32_t> connections;
};

WrittenMaps::WrittenMaps(std::unique_ptr<SharedMemory> memory, const Geometry& geometry)
    : memory_(std::move(memory)),
      geometry_(geometry),
      header_(reinterpret_cast<Header*>(memory_->bytes().data())),
      backed_(in_pages(geometry.map_bytes()) / kMapPageBytes) {}

uint64_t WrittenMaps::total_bytes(const Geometry& geometry) {
  return kMapPageBytes + 2 * in_pages(geometry.map_bytes());
}

ByteRange WrittenMaps::map_range(size_t index) const {
  const uint64_t bytes = in_pages(geometry_.map_bytes());
  return {kMapPageBytes + index * bytes, bytes};
}

ByteSpan WrittenMaps::map(size_t index) {
  const ByteRange range = map_range(index);
  return memory_->bytes().subspan(range.offset, range.length);
}

Result<std::unique_ptr<WrittenMaps>> WrittenMaps::create(SharedMemoryStore& store,
                                                         const std::string& name,
                                                         const Uuid& volume,
                                                         const Geometry& geometry) {
  CKPT_ASSIGN(auto memory, store.create(name, total_bytes(geometry)));
  CKPT_TRY(memory->allocate({0, kMapPageBytes}));
  auto maps = std::unique_ptr<WrittenMaps>(new WrittenMaps(std::move(memory), geometry));
  Header& header = *maps->header_;
  header.magic = kMapMagic;
  header.version = kMapVersion;
  std::memcpy(header.volume, volume.bytes.data(), volume.bytes.size());
  header.size_bytes = geometry.size_bytes;
  header.region_bytes = geometry.region_bytes;
  header.exact.store(1);
  return maps;
}

Result<std::unique_ptr<WrittenMaps>> WrittenMaps::open(SharedMemoryStore& store,
                                                       const std::string& name, const Uuid& volume,
                                                       const Geometry& geometry) {
  CKPT_ASSIGN(auto memory, store.open(name, total_bytes(geometry)));
  CKPT_TRY(memory->allocate({0, kMapPageBytes}));
  auto maps = std::unique_ptr<WrittenMaps>(new WrittenMaps(std::move(memory), geometry));
  const Header& header = *maps->header_;
  const bool ours = header.magic == kMapMagic && header.version == kMapVersion &&
                    std::memcmp(header.volume, volume.bytes.data(), 16) == 0 &&
                    header.size_bytes == geometry.size_bytes &&
                    header.region_bytes == geometry.region_bytes;
  if (!ours) {
    return fail(ErrorKind::kCorrupt, "written maps " + name + ": of another volume");
  }
  return maps;
}

Result<> WrittenMaps::allocate(BlockRange regions) {
  const uint64_t region_map_bytes = geometry_.blocks_per_region() / 8;
  const uint64_t map_bytes = map_range(0).length;
  const uint64_t end = std::min(regions.end * region_map_bytes, map_bytes);
  const MutexLock lock(mutex_);
  for (uint64_t page = regions.first * region_map_bytes / kMapPageBytes; page * kMapPageBytes < end;
       ++page) {
    if (!backed_[page]) {
      CKPT_TRY(back_page(page));
      backed_[page] = true;
    }
  }
  return {};
}

// Once a page: replacing one that is in use would lose its bits.
Result<> WrittenMaps::back_page(uint64_t page) {
  for (size_t index = 0; index < 2; ++index) {
    const ByteRange range{map_range(index).offset + page * kMapPageBytes, kMapPageBytes};
    if (!memory_->allocate(range)) {
      header_->exact.store(0);
      CKPT_TRY(memory_->allocate_private(range));
    }
  }
  return {};
}

Result<std::vector<ByteRange>> WrittenMaps::used_ranges(size_t index) {
  const ByteRange map = map_range(index);
  std::vector<ByteRange> ranges;
  uint64_t offset = map.offset;
  while (offset < map.end()) {
    CKPT_ASSIGN(const auto range, memory_->next_allocated(offset));
    if (!range || range->offset >= map.end()) {
      break;
    }
    const uint64_t end = std::min(range->end(), map.end());
    ranges.push_back({range->offset - map.offset, end - range->offset});
    offset = end;
  }
  return ranges;
}

MapsFacts WrittenMaps::facts() const {
  MapsFacts facts;
  facts.exact = header_->exact.load() != 0;
  facts.nonce = header_->nonce.load();
  facts.next_nonce = header_->next_nonce.load();
  facts.writes_in_flight = header_->writes_in_flight.load();
  facts.last_write = WallTime(header_->last_write.load());
  facts.connections = header_->connections.load();
  return facts;
}

void WrittenMaps::prepare_nonce(uint64_t nonce) { header_->next_nonce.store(nonce); }
void WrittenMaps::commit_nonce(uint64_t nonce) { header_->nonce.store(nonce); }
void WrittenMaps::restart(WallTime last_change) {
  header_->writes_in_flight.store(0);
  header_->connections.store(0);
  header_->last_write.store(last_change.count());
}

void WrittenMaps::begin_write() { ++header_->writes_in_flight; }

// Writes that end together may come here in either order. A clock that was set back takes the time
// along: else a change by somebody else, stamped in between, would look like one of ours.
void WrittenMaps::end_write(WallTime now) {
  int64_t before = header_->last_write.load();
  const auto counts = [&before, now] {
    return before < now.count() || was_set_back(WallTime(before), now);
  };
  while (counts() && !header_->last_write.compare_exchange_weak(before, now.count())) {
  }
  --header_->writes_in_flight;
}

WallTime WrittenMaps::last_write() const { return WallTime(header_->last_write.load()); }

void WrittenMaps::set_connections(uint32_t count) { header_->connections.store(count); }

}  // namespace ckpt
