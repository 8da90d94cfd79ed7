// SPDX-License-Identifier: Apache-2.0
// Golden files: bytes that this and every later version must write and read, and the pages in docs/
// that show them. With CKPT_UPDATE_GOLDEN set the files are written anew.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include "common/bytes.h"

namespace ckpt::test {

inline std::string read_whole(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  EXPECT_TRUE(file.is_open()) << path;
  return {(std::istreambuf_iterator<char>(file)), {}};
}

// name: within tests/unit/golden.
inline std::vector<std::byte> read_golden(const std::string& name) {
  const std::string text = read_whole(std::string(CKPT_GOLDEN_DIR) + "/" + name);
  const ConstByteSpan bytes = as_bytes_of(text);
  return {bytes.begin(), bytes.end()};
}

// Whether the bytes are the golden file's.
inline void expect_golden(const std::string& name, ConstByteSpan bytes) {
  if (std::getenv("CKPT_UPDATE_GOLDEN") != nullptr) {
    std::ofstream file(std::string(CKPT_GOLDEN_DIR) + "/" + name, std::ios::binary);
    for (const std::byte byte : bytes) {
      file.put(static_cast<char>(byte));
    }
  }
  EXPECT_TRUE(std::vector<std::byte>(bytes.begin(), bytes.end()) == read_golden(name)) << name;
}

// As hexdump -C without its last column; lines that repeat the one above are left out.
inline std::string hex_lines(ConstByteSpan bytes) {
  constexpr char kDigits[] = "0123456789abcdef";
  std::string lines;
  std::string above;
  for (size_t at = 0; at < bytes.size(); at += 16) {
    std::string line;
    for (const std::byte byte : bytes.subspan(at, std::min<size_t>(16, bytes.size() - at))) {
      line += {' ', kDigits[static_cast<unsigned>(byte) >> 4U],
               kDigits[static_cast<unsigned>(byte) & 15U]};
    }
    if (line != above) {
      std::string offset;
      for (int shift = 28; shift >= 0; shift -= 4) {
        offset += kDigits[at >> static_cast<unsigned>(shift) & 15U];
      }
      lines += offset + " " + line + "\n";
    }
    above = line;
  }
  return lines;
}

// Whether a page of docs/ shows the golden file, or as much of it, byte for byte.
inline void expect_documented(const std::string& page, const std::string& name,
                              size_t bytes = SIZE_MAX) {
  const std::string text = read_whole(std::string(CKPT_DOCS_DIR) + "/" + page);
  const auto golden = read_golden(name);
  const std::string lines = hex_lines(ConstByteSpan(golden).first(std::min(bytes, golden.size())));
  EXPECT_NE(text.find(lines), std::string::npos)
      << page << " does not show " << name << ", which is\n"
      << lines;
}

}  // namespace ckpt::test
