// SPDX-License-Identifier: Apache-2.0
// What of a volume, or of an image that could become one, would not work, why, and what to do.
#pragma once

#include "tools/check.h"
#include "tools/machine_facts.h"
#include "tools/volume_facts.h"

namespace ckpt {

// Judges facts alone. maps: where this machine has its written maps.
std::vector<Check> check_volume(const VolumeFacts& facts, const Result<MapsPlace>& maps);

}  // namespace ckpt
