// SPDX-License-Identifier: Apache-2.0
// What a start may believe about the image: design 5, "At start", as a function of the facts.
#pragma once

#include <optional>
#include <string>

#include "plugin/volume_record.h"
#include "plugin/written_maps.h"

namespace ckpt {

struct StartFacts {
  VolumeRecord record;   // as found
  FileStamp image;       // as found
  FileStamp self;        // of `volume`, as found
  std::string boot_id;   // of now
  WallTime boot_time{};  // when this boot began
  WallTime now{};
  std::optional<MapsFacts> maps;  // nothing: none there, or of another volume
  bool regions_intact = false;
  bool saved_map_intact = false;
  bool is_device = false;  // the image is a block device
};

// Which blocks count as changed.
enum class ChangedSource {
  kSavedMap,     // a clean stop, nothing touched since
  kWrittenMaps,  // the process died, the machine did not
  kRegionMarks,  // the machine died
  kEverything,   // something does not fit
};

struct StartDecision {
  ChangedSource source = ChangedSource::kEverything;
  std::string reason;        // for people: why everything counts as changed; else empty
  bool had_clients = false;  // clients may have been connected when the server died
};

StartDecision decide_start(const StartFacts& facts);

}  // namespace ckpt
