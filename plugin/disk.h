// SPDX-License-Identifier: Apache-2.0
// The primary image with all that the write path, the shipper and rollback share.
#pragma once

#include <atomic>

#include "common/clock.h"
#include "common/file.h"
#include "common/waker.h"
#include "plugin/block_locks.h"
#include "plugin/epochs.h"
#include "plugin/event_log.h"
#include "plugin/preserved.h"
#include "plugin/region_map.h"
#include "plugin/written_maps.h"

namespace ckpt {

// What is wrong with the image.
//
// Threads: any.
class ImageTrouble {
 public:
  // A sync failed: what the image holds is in doubt until it was rolled back. The first one counts.
  void sync_failed(const std::string& why) CKPT_EXCLUDES(mutex_);
  void rolled_back() CKPT_EXCLUDES(mutex_);
  [[nodiscard]] bool is_suspect() const { return suspect_.load(); }
  // Blocks could not be read for the store, until all_read().
  void unreadable(const Error& error) CKPT_EXCLUDES(mutex_);
  void all_read() CKPT_EXCLUDES(mutex_);
  // For people; empty: nothing.
  [[nodiscard]] std::string text() const CKPT_EXCLUDES(mutex_);

 private:
  std::atomic<bool> suspect_{false};
  mutable Mutex mutex_;
  std::string sync_ CKPT_GUARDED_BY(mutex_);
  std::string read_ CKPT_GUARDED_BY(mutex_);
};

// Threads: the parts say it themselves.
// Order of locks: region pins, then block locks, then an epoch reference; the parts' own mutexes
// last.
struct Disk {
  Disk(const Geometry& disk_geometry, File& disk_image, WrittenMaps& written_maps,
       RegionMap& region_map, Directory& state, Clock& disk_clock, PreserveLimits limits)
      : geometry(disk_geometry),
        image(disk_image),
        maps(written_maps),
        regions(region_map),
        epochs(disk_geometry, written_maps.map(0), written_maps.map(1)),
        preserved(state, limits),
        clock(disk_clock),
        events(state, disk_clock),
        heat(std::make_unique<std::atomic<uint16_t>[]>(disk_geometry.regions())) {}

  const Geometry geometry;
  File& image;
  WrittenMaps& maps;
  RegionMap& regions;
  BlockLocks locks;
  Epochs epochs;
  PreservedQueue preserved;
  Clock& clock;
  EventLog events;
  std::unique_ptr<std::atomic<uint16_t>[]> heat;  // writes a region since the last cut, saturating
  Waker shipper;
  std::atomic<bool> wake_by_volume{true};  // off while the unshipped ones are not worth sending
  uint64_t batch_blocks = 1024;            // so many unshipped ones wake the shipper
  std::atomic<int64_t> stall_epoch_ns{0};  // the longest that a cut made a write wait: this epoch
  std::atomic<int64_t> stall_max_ns{0};    // and ever
  std::atomic<bool> crowded{true};         // processors are short: what may wait does
  ImageTrouble trouble;

  // Whether a block may differ from the store's checkpoint.
  [[nodiscard]] bool is_changed(BlockRange blocks) const {
    const auto [current, closed] = epochs.both();
    return current->written.any_flagged(blocks) ||
           (closed != nullptr && closed->written.any_flagged(blocks));
  }
  [[nodiscard]] uint64_t changed_blocks() const {
    const EpochObject* const closed = epochs.closed();
    return epochs.current().written.count() + (closed != nullptr ? closed->written.count() : 0);
  }
  // How long ago a client's last write ended. If the clock was set back since then, it is not
  // known, and long enough: the next write tells the new time.
  [[nodiscard]] std::chrono::nanoseconds since_write() const {
    const WallTime now = clock.wall();
    const WallTime last = maps.last_write();
    return was_set_back(last, now) ? std::chrono::nanoseconds::max() : now - last;
  }
  // Syncs the image; a failure makes it suspect: no checkpoint is confirmed any more.
  Result<> sync_image() {
    auto synced = image.sync();
    if (!synced) {
      trouble.sync_failed(synced.error().message());
    }
    return synced;
  }
};

}  // namespace ckpt
