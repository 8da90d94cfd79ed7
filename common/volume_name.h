// SPDX-License-Identifier: Apache-2.0
// What people call a volume, beside its UUID.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "common/block.h"

namespace ckpt {

inline constexpr size_t kVolumeNameBytesMax = 255;

// One word of a path: UTF-8 without control characters and slashes, not empty, and neither "." nor
// ".." nor a UUID, which it could be taken for.
bool valid_volume_name(std::string_view name);

// A volume that a back-up has, as it is told to who asks for them.
struct NamedVolume {
  Uuid volume;
  uint64_t size_bytes = 0;
  std::string name;  // empty: its primary has said none
};

// A part of them: at most kVolumesPerAnswer, in the order of their UUIDs.
struct VolumeList {
  std::vector<NamedVolume> volumes;
  bool more = false;  // after the last of these
};

inline constexpr size_t kVolumesPerAnswer = 500;

}  // namespace ckpt
