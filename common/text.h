// SPDX-License-Identifier: Apache-2.0
// Text that somebody else has chosen.
#pragma once

#include <string>
#include <string_view>

namespace ckpt {

bool is_utf8(std::string_view text);
// Whether a byte of it is not the first of a character of UTF-8.
bool is_continuation(char byte);
// Whether it has bytes below 0x20, or 0x7f.
bool has_control_character(std::string_view text);
// Made safe for a terminal, and for one line of a log: control characters and what is not UTF-8
// become '?'.
std::string printable(std::string_view text);
// At most so many bytes of it; not ended in the middle of a character of UTF-8.
std::string shortened(const std::string& text, size_t bytes_max);

}  // namespace ckpt
