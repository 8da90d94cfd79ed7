// SPDX-License-Identifier: Apache-2.0
#include "tools/text_file.h"

#include <fstream>
#include <iterator>

namespace ckpt {

// One of /proc has no size before it is read.
std::string content_of(const std::string& path, size_t bytes_max) {
  std::ifstream file(path, std::ios::binary);
  std::string text;
  for (std::istreambuf_iterator<char> at(file), end; at != end && text.size() < bytes_max; ++at) {
    text += *at;
  }
  return text;
}

std::string first_line_of(const std::string& path) {
  std::ifstream file(path);
  std::string line;
  std::getline(file, line);
  return line;
}

}  // namespace ckpt
