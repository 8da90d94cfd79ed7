// SPDX-License-Identifier: Apache-2.0
// Opening a volume: creates or reads its state and finds out which blocks count as changed.
#pragma once

#include "plugin/disk.h"
#include "plugin/start_decision.h"

namespace ckpt {

// What a volume lives on. All of it outlives the volume.
struct Surroundings {
  File& image;  // open for writing and locked
  Directory& state;
  SharedMemoryStore& memory;
  Clock& clock;
  Random& random;
  std::string boot_id;
  WallTime boot_time{};  // when this boot began
  bool image_is_device = false;
};

struct StartOptions {
  uint64_t region_bytes = 0;  // of a new volume; 0: by the disk's size
  std::string store_place;    // of a new volume
  // Of a new one that goes on from a checkpoint which the image holds: what is known of it.
  std::optional<VolumeRecord> origin;
  bool offline = false;  // nothing will be served
  PreserveLimits preserve;
};

// An opened volume's state, before any session with its store.
struct StartedVolume {
  std::unique_ptr<VolumeRecordFile> record;
  std::unique_ptr<RegionMap> regions;
  std::unique_ptr<WrittenMaps> maps;
  std::unique_ptr<Disk> disk;  // refers to the others and to the surroundings
  StartDecision decision;
  bool is_new = false;
};

// Durability: when it returns, the volume is recorded as unclean and every block that may differ
// from
//             the last checkpoint counts as changed, also after the next crash.
// Failure:    nothing was lost; kInvalid for an image of the wrong size, kCorrupt for a damaged
// record.
Result<StartedVolume> start_volume(const Surroundings& surroundings, const StartOptions& options);

// The clean end: image synced, map saved, recorded as clean. All else must have ended.
Result<> stop_volume(const Surroundings& surroundings, StartedVolume& volume);

}  // namespace ckpt
