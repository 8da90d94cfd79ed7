// SPDX-License-Identifier: Apache-2.0
// Reads the file `events` of a state directory, whether a server appends to it or not.
#pragma once

#include <optional>
#include <string_view>
#include <vector>

#include "plugin/event_log.h"

namespace ckpt {

// Nothing: the line is torn, or no event that this version knows.
std::optional<Event> decode_event(std::string_view line);

// At most so many, the last ones, oldest first. Lines that are no events are skipped; a file that
// is missing has none. Reads at most the last kEventFileBytesMax bytes.
Result<std::vector<Event>> read_events(Directory& state, size_t most);

}  // namespace ckpt
