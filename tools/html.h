// SPDX-License-Identifier: Apache-2.0
// Text within HTML.
#pragma once

#include <string>
#include <string_view>

namespace ckpt {

// Safe between tags and within quotes; control characters and what is not UTF-8 become '?'.
std::string html(std::string_view text);
// For text that others chose: its direction of writing does not touch what is around it.
std::string foreign_html(std::string_view text);

}  // namespace ckpt
