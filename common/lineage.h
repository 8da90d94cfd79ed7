// SPDX-License-Identifier: Apache-2.0
// The line of checkpoints that leads to the last one of a volume.
#pragma once

#include <optional>
#include <span>
#include <vector>

#include "common/store_link.h"

namespace ckpt {

// Whether a checkpoint is or was on the line: at or before the last one, or at or before where an
// older timeline ended (forks).
bool is_on_line(const CheckpointId& id, std::span<const CheckpointId> forks,
                const std::optional<CheckpointId>& last);

// The last ends of older timelines, for people: at most kLineageMax, oldest first.
inline constexpr size_t kLineageMax = 16;
std::vector<CheckpointId> recent_ends(const std::vector<CheckpointId>& forks);

}  // namespace ckpt
