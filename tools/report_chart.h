// SPDX-License-Identifier: Apache-2.0
// The report's charts, as SVG within HTML.
#pragma once

#include <span>
#include <string>

#include "plugin/event_log.h"

namespace ckpt {

// More than these are too narrow to be seen.
inline constexpr size_t kSlotsMax = 160;

// Whether an event has a place in the charts: checkpoints, and what came of those that were due.
bool is_charted(const Event& event);

// Changed and shipped bytes of each checkpoint as bars, the other events as marks between them.
// events: at most kSlotsMax, all of them charted, oldest first, not none.
std::string bytes_chart(std::span<const Event> events);
// How long each checkpoint took to be confirmed, and how long it made a write wait. As above.
std::string times_chart(std::span<const Event> events);

}  // namespace ckpt
