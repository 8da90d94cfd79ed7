// SPDX-License-Identifier: Apache-2.0
// Reads the file `events` of a state directory, whether a server appends to it or not.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "plugin/event_log.h"

namespace ckpt {

// Nothing: the line is torn, or no event that this version knows.
std::optional<Event> decode_event(std::string_view line);

// At most so many, the last ones, oldest first. Lines that are no events are skipped. Reads at most
// the last kEventFileBytesMax bytes.
Result<std::vector<Event>> read_events(File& file, size_t most);

// Those of a state directory: none where the file is missing or is no regular one. Does not wait
// for anybody at the other end of a FIFO.
Result<std::vector<Event>> read_events(const std::string& state_path, size_t most);

}  // namespace ckpt
