// SPDX-License-Identifier: Apache-2.0
// Explicit little-endian encoding and decoding over spans: all formats go through here.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

namespace ckpt {

using ByteSpan = std::span<std::byte>;
using ConstByteSpan = std::span<const std::byte>;

inline ConstByteSpan as_bytes_of(std::string_view text) {
  return std::as_bytes(std::span(text.data(), text.size()));
}

// Copies all of `from` to the start of `to`, which has room for it. They may overlap.
// Not std::ranges::copy: GCC 12 makes a loop over single bytes of it.
inline void copy_bytes(ConstByteSpan from, ByteSpan to) {
  if (!from.empty()) {
    std::memmove(to.data(), from.data(), from.size());
  }
}

// Appends fields to a buffer.
class Encoder {
 public:
  template <typename T>
  requires std::is_unsigned_v<T>
  void put(T value) {
    for (size_t i = 0; i < sizeof(T); ++i) {
      bytes_.push_back(static_cast<std::byte>((value >> (8 * i)) & 0xffU));
    }
  }
  void put_bytes(ConstByteSpan bytes) {
    // insert() would make GCC 12 warn at -O3 of an overflow that cannot be.
    const size_t end = bytes_.size();
    bytes_.resize(end + bytes.size());
    copy_bytes(bytes, ByteSpan(bytes_).subspan(end));
  }
  template <size_t N>
  void put_array(const std::array<uint8_t, N>& bytes) {
    put_bytes(std::as_bytes(std::span(bytes)));
  }
  // A string of at most 65535 bytes: its length in two bytes, then its bytes.
  void put_string(std::string_view text) {
    put(static_cast<uint16_t>(text.size()));
    put_bytes(as_bytes_of(text));
  }
  void put_zeroes(size_t count) { bytes_.resize(bytes_.size() + count); }
  [[nodiscard]] size_t size() const { return bytes_.size(); }
  [[nodiscard]] ConstByteSpan bytes() const { return bytes_; }
  [[nodiscard]] std::vector<std::byte> take() { return std::move(bytes_); }

 private:
  std::vector<std::byte> bytes_;
};

// Takes fields off the front of a span. After reading past the end ok() is false for good and every
// field reads as zero, so a decoder checks once, at the end.
class Decoder {
 public:
  explicit Decoder(ConstByteSpan bytes) : bytes_(bytes) {}
  template <typename T>
  requires std::is_unsigned_v<T> T get() {
    T value = 0;
    const ConstByteSpan field = get_bytes(sizeof(T));
    for (size_t i = 0; i < field.size(); ++i) {
      value = static_cast<T>(value | static_cast<T>(static_cast<T>(field[i]) << (8 * i)));
    }
    return value;
  }
  // count bytes, or an empty span if there are not so many.
  ConstByteSpan get_bytes(size_t count) {
    if (!ok_ || count > bytes_.size()) {
      ok_ = false;
      return {};
    }
    const ConstByteSpan field = bytes_.first(count);
    bytes_ = bytes_.subspan(count);
    return field;
  }
  template <size_t N>
  std::array<uint8_t, N> get_array() {
    std::array<uint8_t, N> out{};
    const ConstByteSpan field = get_bytes(N);
    if (field.size() == N) {
      std::memcpy(out.data(), field.data(), N);
    }
    return out;
  }
  std::string get_string() {
    const ConstByteSpan field = get_bytes(get<uint16_t>());
    // Not memcpy: an empty field has no address.
    std::string text;
    for (const std::byte byte : field) {
      text.push_back(static_cast<char>(byte));
    }
    return text;
  }
  // Reserved bytes: must be there and zero.
  void get_zeroes(size_t count) {
    for (const std::byte byte : get_bytes(count)) {
      ok_ = ok_ && byte == std::byte{0};
    }
  }
  [[nodiscard]] bool ok() const { return ok_; }
  [[nodiscard]] size_t remaining() const { return bytes_.size(); }

 private:
  ConstByteSpan bytes_;
  bool ok_ = true;
};

}  // namespace ckpt
