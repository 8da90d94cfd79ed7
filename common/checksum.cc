// SPDX-License-Identifier: Apache-2.0
#include "common/checksum.h"

#define XXH_INLINE_ALL  // the fastest of the library's forms: no call per block
#include <xxhash.h>

namespace ckpt {
namespace {

constexpr uint32_t kPolynomial = 0x82f63b78;  // Castagnoli's, reflected

constexpr std::array<uint32_t, 256> make_table() {
  std::array<uint32_t, 256> table{};
  for (uint32_t i = 0; i < 256; ++i) {
    uint32_t crc = i;
    for (int bit = 0; bit < 8; ++bit) {
      crc = (crc >> 1U) ^ ((crc & 1U) != 0 ? kPolynomial : 0);
    }
    table[i] = crc;
  }
  return table;
}

constexpr std::array<uint32_t, 256> kTable = make_table();

}  // namespace

uint32_t crc32c(ConstByteSpan bytes) {
  // Headers are small: a table is fast enough, and the same on every processor.
  uint32_t crc = ~uint32_t{0};
  for (const std::byte byte : bytes) {
    crc = (crc >> 8U) ^ kTable[(crc ^ static_cast<uint32_t>(byte)) & 0xffU];
  }
  return ~crc;
}

Digest digest_of(ConstByteSpan bytes) { return digest_of(bytes, 0); }

Digest digest_of(ConstByteSpan bytes, uint64_t seed) {
  const XXH128_hash_t hash = XXH3_128bits_withSeed(bytes.data(), bytes.size(), seed);
  XXH128_canonical_t canonical;
  XXH128_canonicalFromHash(&canonical, hash);
  Digest digest;
  std::memcpy(digest.bytes.data(), canonical.digest, digest.bytes.size());
  return digest;
}

bool is_zero(ConstByteSpan bytes) {
  // A span is all zero if its first 16 bytes are and it equals itself moved by 16: memcmp is fast.
  const size_t head = bytes.size() < 16 ? bytes.size() : 16;
  for (size_t i = 0; i < head; ++i) {
    if (bytes[i] != std::byte{0}) {
      return false;
    }
  }
  return bytes.size() <= 16 || std::memcmp(bytes.data(), bytes.data() + 16, bytes.size() - 16) == 0;
}

}  // namespace ckpt
