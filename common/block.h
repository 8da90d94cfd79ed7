// SPDX-License-Identifier: Apache-2.0
// Blocks, byte ranges, epochs and identities: the numbers that must not be swapped.
#pragma once

#include <array>
#include <compare>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace ckpt {

// The unit of change tracking. The last block of a disk may be short.
inline constexpr uint64_t kBlockBytes = 4096;
// A request is handled in pieces of at most this many bytes.
inline constexpr uint64_t kPieceBytes = uint64_t{1} << 20U;
// Larger disks are refused: all offsets stay far from overflow.
inline constexpr uint64_t kDiskBytesMax = uint64_t{1} << 60U;

// The number of an epoch, and of the checkpoint at its cut. 0 is no epoch.
struct Epoch {
  uint64_t value = 0;
  auto operator<=>(const Epoch&) const = default;
  [[nodiscard]] Epoch next() const { return Epoch{value + 1}; }
};

// Half-open: [offset, offset + length) in bytes.
struct ByteRange {
  uint64_t offset = 0;
  uint64_t length = 0;
  auto operator<=>(const ByteRange&) const = default;
  [[nodiscard]] uint64_t end() const { return offset + length; }
};

// Half-open: blocks [first, end).
struct BlockRange {
  uint64_t first = 0;
  uint64_t end = 0;
  auto operator<=>(const BlockRange&) const = default;
  [[nodiscard]] uint64_t count() const { return end - first; }
  [[nodiscard]] bool empty() const { return first >= end; }
  [[nodiscard]] bool overlaps(const BlockRange& other) const {
    return first < other.end && other.first < end;
  }
};

// How many blocks a disk of so many bytes has; the last may be short.
constexpr uint64_t block_count(uint64_t size_bytes) {
  return size_bytes / kBlockBytes + (size_bytes % kBlockBytes != 0 ? 1 : 0);
}

// The blocks that a byte range touches.
constexpr BlockRange blocks_of(ByteRange range) {
  return {range.offset / kBlockBytes, block_count(range.offset + range.length)};
}

// The bytes of blocks on a disk of size_bytes: cut off at its end.
constexpr ByteRange bytes_of(BlockRange blocks, uint64_t size_bytes) {
  const uint64_t begin = blocks.first * kBlockBytes;
  const uint64_t end = blocks.end * kBlockBytes;
  return {begin, (end < size_bytes ? end : size_bytes) - begin};
}

// A UUID as RFC 9562 lays it out. All zero: none.
struct Uuid {
  std::array<uint8_t, 16> bytes{};
  auto operator<=>(const Uuid&) const = default;
  [[nodiscard]] bool is_nil() const { return *this == Uuid{}; }
  // "018f…-…": 36 characters, lower case.
  [[nodiscard]] std::string to_string() const;
  static std::optional<Uuid> parse(std::string_view text);
};

// A 128-bit XXH3 digest, high half first.
struct Digest {
  std::array<uint8_t, 16> bytes{};
  auto operator<=>(const Digest&) const = default;
  // 32 hexadecimal digits.
  [[nodiscard]] std::string to_string() const;
};

}  // namespace ckpt
