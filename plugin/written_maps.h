// SPDX-License-Identifier: Apache-2.0
// The written maps' shared memory: a header page and two maps. It outlives the process, not the
// machine.
#pragma once

#include <memory>
#include <vector>

#include "common/file.h"
#include "common/mutex.h"
#include "plugin/change_map.h"

namespace ckpt {

// Whether the wall clock was set back between a time that it showed and now. Two threads that look
// at it may tell of it in the wrong order: not by so much.
inline bool was_set_back(WallTime shown, WallTime now) {
  return shown - now > std::chrono::milliseconds(100) && !CKPT_PLANTED(clock_never_goes_back);
}

// What the header said when an earlier process died.
struct MapsFacts {
  bool exact = false;       // every page is backed by the shared memory
  uint64_t nonce = 0;       // of the generation of `volume` that they belong to
  uint64_t next_nonce = 0;  // and of the one that was being written
  uint32_t writes_in_flight = 0;
  WallTime last_write{};  // when the last write ended
  uint32_t connections = 0;
};

// Threads:  begin_write(), end_write() and allocate() from any thread; the rest by whoever opens or
// closes. Lifetime: owns the mapping; maps() points into it. Format:   docs/volume-format.md,
// "Written maps"
class WrittenMaps {
 public:
  static Result<std::unique_ptr<WrittenMaps>> create(SharedMemoryStore& store,
                                                     const std::string& name, const Uuid& volume,
                                                     const Geometry& geometry);
  // kNotFound; kCorrupt when they are of another volume or size.
  static Result<std::unique_ptr<WrittenMaps>> open(SharedMemoryStore& store,
                                                   const std::string& name, const Uuid& volume,
                                                   const Geometry& geometry);

  // What they take of the store's space, if every block is written.
  static uint64_t total_bytes(const Geometry& geometry);

  // The memory of map 0 or 1.
  [[nodiscard]] ByteSpan map(size_t index);
  // Backs the maps' memory for some regions: touching it cannot fault. When the tmpfs is full the
  // memory is private and the maps are no longer exact: a killed process leaves only the region
  // marks.
  Result<> allocate(BlockRange regions);
  [[nodiscard]] MapsFacts facts() const;
  // The bytes of map 0 or 1 that may hold bits of an earlier process.
  Result<std::vector<ByteRange>> used_ranges(size_t index);

  // `volume` is about to be written with this nonce; and: it was.
  void prepare_nonce(uint64_t nonce);
  void commit_nonce(uint64_t nonce);
  // A new process serves the volume: nothing is in flight, nobody is connected, and the image was
  // last changed then.
  void restart(WallTime last_change);
  // Around every change of the image: so that a start knows what it may have been.
  void begin_write();
  void end_write(WallTime now);
  [[nodiscard]] WallTime last_write() const;
  void set_connections(uint32_t count);

 private:
  struct Header;
  WrittenMaps(std::unique_ptr<SharedMemory> memory, const Geometry& geometry);
  [[nodiscard]] ByteRange map_range(size_t index) const;
  Result<> back_page(uint64_t page) CKPT_REQUIRES(mutex_);

  std::unique_ptr<SharedMemory> memory_;
  Geometry geometry_;
  Header* header_;
  Mutex mutex_;
  std::vector<bool> backed_ CKPT_GUARDED_BY(mutex_);  // pages of either map
};

}  // namespace ckpt
