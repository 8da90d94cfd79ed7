// SPDX-License-Identifier: Apache-2.0
#include "common/draft.h"

#include <algorithm>
#include <cstring>

#include "common/checksum.h"

namespace ckpt {
namespace {

void add_extent(std::vector<Extent>& extents, const Extent& extent) {
  if (!extents.empty()) {
    Extent& last = extents.back();
    if (last.kind == extent.kind && last.offset + last.length == extent.offset) {
      last.length += extent.length;
      return;
    }
  }
  extents.push_back(extent);
}

}  // namespace

// Not cleared: pages that no batch reaches are never backed.
Draft::Draft(uint64_t bytes) : bytes_(bytes), memory_(bytes) {}

void Draft::begin(uint64_t sequence) {
  sequence_ = sequence;
  blocks_ = 0;
  used_ = 0;
  extents_.clear();
}

ByteSpan Draft::room(uint64_t bytes) {
  CKPT_CHECK(bytes <= bytes_ - used_);
  return memory_.span().subspan(used_, bytes);
}

void Draft::add(std::span<const Transfer> transfers) {
  for (const Transfer& transfer : transfers) {
    add_blocks(transfer.offset, transfer.buffer);
  }
}

void Draft::add_hole(ByteRange range) {
  add_extent(extents_, {range.offset, range.length, ExtentKind::kZero});
  blocks_ += blocks_of(range).count();
}

// Blocks with data move down over those of zeroes before them.
void Draft::add_blocks(uint64_t offset, ByteSpan bytes) {
  while (!bytes.empty()) {
    const ByteSpan block = bytes.first(std::min<size_t>(kBlockBytes, bytes.size()));
    const bool zero = is_zero(block);
    add_extent(extents_, {offset, block.size(), zero ? ExtentKind::kZero : ExtentKind::kData});
    if (!zero) {
      std::byte* const end = memory_.data() + used_;
      if (end != block.data()) {
        std::memmove(end, block.data(), block.size());
      }
      used_ += block.size();
    }
    ++blocks_;
    offset += block.size();
    bytes = bytes.subspan(block.size());
  }
}

}  // namespace ckpt
