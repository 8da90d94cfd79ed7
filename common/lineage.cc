// SPDX-License-Identifier: Apache-2.0
#include "common/lineage.h"

#include <algorithm>

namespace ckpt {

bool is_on_line(const CheckpointId& id, std::span<const CheckpointId> forks,
                const std::optional<CheckpointId>& last) {
  const auto at_or_before = [&id](const CheckpointId& end) {
    return end.timeline == id.timeline && id.number <= end.number;
  };
  return std::ranges::any_of(forks, at_or_before) || (last && at_or_before(*last));
}

std::vector<CheckpointId> recent_ends(const std::vector<CheckpointId>& forks) {
  const size_t older = forks.size() - std::min(forks.size(), kLineageMax);
  return {forks.begin() + static_cast<std::ptrdiff_t>(older), forks.end()};
}

}  // namespace ckpt
