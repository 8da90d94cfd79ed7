// SPDX-License-Identifier: Apache-2.0
// Files of text, such as those of /proc and of other programs.
#pragma once

#include <limits>
#include <string>
#include <vector>

namespace ckpt {

// What is in a file, at most so much. Empty: it cannot be read.
std::string content_of(const std::string& path,
                       size_t bytes_max = std::numeric_limits<size_t>::max());

// What a process was started with, by its folder in /proc. Empty: it has ended.
std::vector<std::string> words_of_process(const std::string& folder);

// The first line of a file, without the newline. Empty: there is none.
std::string first_line_of(const std::string& path);

}  // namespace ckpt
