// SPDX-License-Identifier: Apache-2.0
// The bytes a write carries: a function of its seed and the byte's offset on the disk, so that
// nothing needs to be stored to know what any byte of any write must be.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace ckpt {

// The 8 bytes, little-endian, at offsets [word * 8, word * 8 + 8) of the content `seed`.
constexpr uint64_t content_word(uint64_t seed, uint64_t word) {
  uint64_t x = (word + 1) * 0x9E3779B97F4A7C15ULL ^ seed;
  x = (x ^ (x >> 32)) * 0xD6E8FEB86659FD93ULL;
  return x ^ (x >> 29);
}

constexpr uint8_t content_byte(uint64_t seed, uint64_t offset) {
  return static_cast<uint8_t>(content_word(seed, offset / 8) >> (offset % 8 * 8));
}

// Fills `out` with the content `seed` of the disk's bytes [offset, offset + out.size()).
void fill_content(uint64_t seed, uint64_t offset, std::span<uint8_t> out);

// How many leading bytes of `data`, which starts at the disk's `offset`, are the content `seed`.
size_t content_match(uint64_t seed, uint64_t offset, std::span<const uint8_t> data);

// How many leading bytes of `data` are zero.
size_t zero_match(std::span<const uint8_t> data);

// How many leading bytes of `data` and `other` (not shorter) are equal.
size_t equal_match(std::span<const uint8_t> data, std::span<const uint8_t> other);

}  // namespace ckpt
