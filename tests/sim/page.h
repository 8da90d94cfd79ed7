// SPDX-License-Identifier: Apache-2.0
// Pages of simulated files: shared until somebody writes, because the cache and the disk hold the same
// content most of the time.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <utility>

#include "tests/sim/random.h"

namespace ckpt::sim {

inline constexpr size_t kPageBytes = 4096;
inline constexpr size_t kSectorBytes = 512;  // what a disk writes whole or not at all

// 4096 bytes, or none: a page that was never written, which reads as zeroes.
class Page {
 public:
  Page() = default;
  Page(const Page& other) : data_(other.data_) { add_reference(); }
  Page(Page&& other) noexcept : data_(std::exchange(other.data_, nullptr)) {}
  Page& operator=(Page other) noexcept {
    std::swap(data_, other.data_);
    return *this;
  }
  ~Page() { drop_reference(); }

  [[nodiscard]] bool is_hole() const { return data_ == nullptr; }
  // Whether they are one and the same, not only equal.
  [[nodiscard]] bool same_as(const Page& other) const { return data_ == other.data_; }
  // Null for a hole.
  [[nodiscard]] const std::byte* read() const { return data_ ? data_->bytes.data() : nullptr; }
  // The content, no longer shared with any other.
  std::byte* write();
  // Each sector of one or the other.
  static Page torn(const Page& one, const Page& other, SeededRandom& random);

 private:
  struct Data {
    uint32_t references = 1;
    Data* next_free = nullptr;
    alignas(16) std::array<std::byte, kPageBytes> bytes;
  };

  static Data* take();
  static Data*& free_list();
  void add_reference() {
    if (data_ != nullptr) {
      ++data_->references;
    }
  }
  void drop_reference();

  Data* data_ = nullptr;
};

}  // namespace ckpt::sim
