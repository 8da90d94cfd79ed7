// SPDX-License-Identifier: Apache-2.0
// The line of checkpoints that leads to the last one of a volume.
#pragma once

#include <optional>
#include <span>

#include "common/store_link.h"

namespace ckpt {

// Whether a checkpoint is or was on the line: at or before the last one, or at or before where an
// older timeline ended (forks).
bool is_on_line(const CheckpointId& id, std::span<const CheckpointId> forks,
                const std::optional<CheckpointId>& last);

}  // namespace ckpt
