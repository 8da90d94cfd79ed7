// SPDX-License-Identifier: Apache-2.0
// Content by the word where it can be, by the byte at the unaligned ends.

#include "tests/integration/content.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>

namespace ckpt {

static_assert(std::endian::native == std::endian::little, "content_word() is copied as it is");

void fill_content(uint64_t seed, uint64_t offset, std::span<uint8_t> out) {
  size_t i = 0;
  for (; i < out.size() && (offset + i) % 8 != 0; ++i) out[i] = content_byte(seed, offset + i);
  for (; i + 8 <= out.size(); i += 8) {
    const uint64_t word = content_word(seed, (offset + i) / 8);
    std::memcpy(out.data() + i, &word, sizeof word);
  }
  for (; i < out.size(); ++i) out[i] = content_byte(seed, offset + i);
}

size_t content_match(uint64_t seed, uint64_t offset, std::span<const uint8_t> data) {
  size_t i = 0;
  for (; i < data.size() && (offset + i) % 8 != 0; ++i) {
    if (data[i] != content_byte(seed, offset + i)) return i;
  }
  for (; i + 8 <= data.size(); i += 8) {
    const uint64_t word = content_word(seed, (offset + i) / 8);
    if (std::memcmp(data.data() + i, &word, sizeof word) != 0) break;
  }
  while (i < data.size() && data[i] == content_byte(seed, offset + i)) ++i;
  return i;
}

size_t zero_match(std::span<const uint8_t> data) {
  static constexpr std::array<uint8_t, 4096> kZeroes{};
  size_t i = 0;
  while (i < data.size()) {
    const size_t part = std::min(data.size() - i, kZeroes.size());
    if (std::memcmp(data.data() + i, kZeroes.data(), part) != 0) break;
    i += part;
  }
  while (i < data.size() && data[i] == 0) ++i;
  return i;
}

size_t equal_match(std::span<const uint8_t> data, std::span<const uint8_t> other) {
  if (std::memcmp(data.data(), other.data(), data.size()) == 0) return data.size();
  const auto first = std::mismatch(data.begin(), data.end(), other.begin()).first;
  return static_cast<size_t>(first - data.begin());
}

}  // namespace ckpt
