// SPDX-License-Identifier: Apache-2.0
// Region marks: which regions of the primary may have changed, kept on disk for after a power loss.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <set>
#include <vector>

#include "common/file.h"
#include "common/mutex.h"
#include "plugin/change_map.h"

namespace ckpt {

// What the marks need of their volume.
struct RegionHooks {
  // Called before regions [first, end) are marked for the first time: their maps' memory.
  std::function<Result<>(BlockRange regions)> prepare;
  // A mark could not be made durable: records durably that everything is changed, or fails.
  std::function<Result<>(const Error& reason)> on_failure;
  // Whether a region has a written bit in any epoch.
  std::function<bool(uint64_t region)> has_changes;
};

// One bit a region, in memory and on disk. A region is pinned while a write in it has not yet set
// its written bits; a mark is durable before pin() returns; a mark is taken back only when the
// region has neither pins nor written bits: first in memory, then looking again, then on disk.
//
// Threads:    pin() and unpin() by writers; the others by one thread at a time.
// Failure:    see RegionHooks::on_failure; after it all regions count as marked.
// Durability: a mark is synced before the first write to its region may start (design 5).
// Format:     docs/volume-format.md, "Regions"
class RegionMap {
 public:
  enum class Marks { kNone, kAll };
  // Replaces what is there, atomically.
  static Result<std::unique_ptr<RegionMap>> create(Directory& directory, const Uuid& volume,
                                                   const Geometry& geometry, Marks marks);
  // Syncs the file before trusting it. kNotFound, kCorrupt.
  static Result<std::unique_ptr<RegionMap>> open(Directory& directory, const Uuid& volume,
                                                 const Geometry& geometry);
  void set_hooks(RegionHooks hooks) { hooks_ = std::move(hooks); }

  // Pins the regions of some blocks; then sees to it that they are marked. Fails only when neither
  // the marks nor "everything changed" could be made durable; nothing is pinned then.
  Result<> pin(BlockRange blocks);
  void unpin(BlockRange blocks);

  // Marks regions [first, end) durably, and some that follow.
  Result<> mark(BlockRange regions);
  // Marks just these durably, by one sync.
  Result<> mark_each(const std::set<uint64_t>& regions);
  // Everything is recorded as changed elsewhere: no marks are needed from here on.
  void set_everything() { everything_.store(true); }
  [[nodiscard]] bool is_everything() const { return everything_.load(); }
  [[nodiscard]] bool is_marked(uint64_t region) const {
    return everything_.load() || marked_[region].load() != 0;
  }
  // Takes back the marks of regions without pins, changes or use since the last two calls.
  Result<> unmark_some();
  [[nodiscard]] uint64_t marked_count() const;

 private:
  RegionMap(std::unique_ptr<File> file, const Geometry& geometry);
  [[nodiscard]] uint64_t ahead_of(uint64_t region) const;
  void want(BlockRange regions);
  std::set<uint64_t> take_wanted();
  Result<> write_marks(const std::set<uint64_t>& regions) CKPT_REQUIRES(file_mutex_);
  Result<> write_bits() CKPT_REQUIRES(file_mutex_);
  [[nodiscard]] bool all_marked(BlockRange regions) const;
  [[nodiscard]] std::vector<uint64_t> pick_idle() const;
  [[nodiscard]] bool in_use(uint64_t region) const;

  std::unique_ptr<File> file_;
  Geometry geometry_;
  RegionHooks hooks_;
  std::unique_ptr<std::atomic<uint32_t>[]> pins_;
  std::unique_ptr<std::atomic<uint8_t>[]> marked_;  // as writers may rely on it
  std::unique_ptr<std::atomic<uint8_t>[]> used_;    // calls of unmark_some() that it outlives, yet
  std::atomic<bool> everything_{false};
  // Order: file_mutex_ before wanted_mutex_.
  Mutex file_mutex_;  // held while marks are written: marking and unmarking go one at a time
  std::vector<std::byte> bits_ CKPT_GUARDED_BY(file_mutex_);  // as on disk, or being written
  Mutex wanted_mutex_;
  std::set<uint64_t> wanted_ CKPT_GUARDED_BY(wanted_mutex_);
};

}  // namespace ckpt
