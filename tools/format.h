// SPDX-License-Identifier: Apache-2.0
// Numbers, times and texts as people read them.
#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "common/clock.h"
#include "common/text.h"

namespace ckpt {

// Binary units, at least two digits: "512 bytes", "1.5 MiB", "320 GiB".
std::string format_bytes(uint64_t bytes);
// With the exact number where the unit hides it: "1.0 GiB (1073741824 bytes)".
std::string format_bytes_exact(uint64_t bytes);
// Two units at most: "850 us", "1.2 ms", "42.0 s", "3 min 20 s", "2 d 4 h".
std::string format_duration(std::chrono::nanoseconds time);
// "2026-01-31 12:00:00 +0100", in the user's time zone.
std::string format_local_time(WallTime time);
// As format_local_time, and how long that is ago.
std::string format_past(WallTime time, WallTime now);

// Characters, not bytes, of UTF-8 text.
size_t width_of(std::string_view text);

// Lines "label   value", the values aligned.
using LabelledRows = std::vector<std::pair<std::string, std::string>>;
std::string format_rows(const LabelledRows& rows);

// Columns aligned under the first row, two spaces apart. Columns in right_aligned hold numbers.
std::string format_table(const std::vector<std::vector<std::string>>& rows,
                         const std::vector<bool>& right_aligned);

}  // namespace ckpt
