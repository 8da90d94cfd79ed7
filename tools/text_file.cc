// SPDX-License-Identifier: Apache-2.0
#include "tools/text_file.h"

#include <algorithm>
#include <array>
#include <fstream>

namespace ckpt {
namespace {

constexpr size_t kPieceOfText = 4096;

}  // namespace

// One of /proc has no size before it is read, and fails to be when its process ends meanwhile: an
// iterator of the stream would throw then.
std::string content_of(const std::string& path, size_t bytes_max) {
  std::ifstream file(path, std::ios::binary);
  std::string text;
  std::array<char, kPieceOfText> piece{};
  while (file && text.size() < bytes_max) {
    file.read(piece.data(),
              static_cast<std::streamsize>(std::min(piece.size(), bytes_max - text.size())));
    text.append(piece.data(), static_cast<size_t>(file.gcount()));
  }
  return text;
}

std::vector<std::string> words_of_process(const std::string& folder) {
  constexpr size_t kWordsBytesMax = size_t{1} << 20U;
  const std::string text = content_of(folder + "/cmdline", kWordsBytesMax);
  std::vector<std::string> words;
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = std::min(text.find('\0', begin), text.size());
    words.push_back(text.substr(begin, end - begin));
    begin = end + 1;
  }
  return words;
}

std::string first_line_of(const std::string& path) {
  std::ifstream file(path);
  std::string line;
  std::getline(file, line);
  return line;
}

}  // namespace ckpt
