// SPDX-License-Identifier: Apache-2.0
#include "tests/sim/page.h"

#include <algorithm>
#include <cstring>

namespace ckpt::sim {

// Kept for reuse for as long as the program runs.
Page::Data*& Page::free_list() {
  static Data* list = nullptr;
  return list;
}

Page::Data* Page::take() {
  Data*& list = free_list();
  if (list == nullptr) {
    return new Data;
  }
  Data* const data = std::exchange(list, list->next_free);
  data->references = 1;
  return data;
}

void Page::drop_reference() {
  if (data_ != nullptr && --data_->references == 0) {
    data_->next_free = free_list();
    free_list() = data_;
  }
}

std::byte* Page::write() {
  if (data_ == nullptr) {
    data_ = take();
    data_->bytes.fill(std::byte{0});
  } else if (data_->references > 1) {
    Data* const copy = take();
    copy->bytes = data_->bytes;
    --data_->references;
    data_ = copy;
  }
  return data_->bytes.data();
}

Page Page::torn(const Page& one, const Page& other, SeededRandom& random) {
  Page page = one;
  std::byte* const bytes = page.write();
  const uint64_t choice = random.next();
  for (size_t at = 0, sector = 0; at < kPageBytes; at += kSectorBytes, ++sector) {
    if (((choice >> sector) & 1U) == 0) {
      continue;
    }
    if (other.is_hole()) {
      std::fill_n(bytes + at, kSectorBytes, std::byte{0});
    } else {
      std::memcpy(bytes + at, other.read() + at, kSectorBytes);
    }
  }
  return page;
}

}  // namespace ckpt::sim
