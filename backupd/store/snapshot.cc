// SPDX-License-Identifier: Apache-2.0
#include "backupd/store/snapshot.h"

#include <algorithm>

namespace ckpt {

Result<bool> Snapshot::step() {
  const MutexLock lock(mutex_);
  if (ended_) {
    return Unexpected(*ended_);
  }
  const auto gap = ahead_.find({next_block_, block_count(size_bytes_)}, false);
  if (!gap) {
    return false;
  }
  auto end = hand_over(bytes_of(*gap, size_bytes_));
  if (!end) {
    ended_ = end.error();
    return Unexpected(end.error());
  }
  next_block_ = block_count(*end);
  return true;
}

void Snapshot::preserve(const std::vector<Extent>& extents) {
  const MutexLock lock(mutex_);
  for (const Extent& extent : extents) {
    if (ended_) {
      return;
    }
    BlockRange blocks = blocks_of(ByteRange{extent.offset, extent.length});
    blocks.first = std::max(blocks.first, next_block_);
    if (auto preserved = preserve_blocks(blocks); !preserved) {
      ended_ = preserved.error();
    }
  }
}

Result<> Snapshot::preserve_blocks(BlockRange blocks) {
  while (const auto gap = blocks.empty() ? std::nullopt : ahead_.find(blocks, false)) {
    const ByteRange range = bytes_of(*gap, size_bytes_);
    for (uint64_t offset = range.offset; offset < range.end();) {
      CKPT_ASSIGN(offset, hand_over({offset, range.end() - offset}));
    }
    ahead_.add(*gap);
    blocks.first = gap->end;
  }
  return {};
}

void Snapshot::abandon(const Error& error) {
  const MutexLock lock(mutex_);
  if (!ended_) {
    ended_ = error;
  }
}

Result<uint64_t> Snapshot::hand_over(ByteRange range) {
  CKPT_ASSIGN(const auto data, image_.next_data(range.offset));
  // A file system may tell of holes in units smaller than a block: such a block is data.
  const uint64_t data_begin = data ? data->offset / kBlockBytes * kBlockBytes : range.end();
  if (const uint64_t begin = std::clamp(data_begin, range.offset, range.end());
      begin > range.offset) {
    CKPT_TRY(sink_.zero({range.offset, begin - range.offset}));
    return begin;
  }
  const uint64_t data_end = block_count(data->end()) * kBlockBytes;
  const uint64_t length = std::min({range.length, kPieceBytes, data_end - range.offset});
  const ByteSpan piece = buffer_.span().first(length);
  CKPT_TRY(image_.read(range.offset, piece));
  CKPT_TRY(sink_.write(range.offset, piece));
  return range.offset + length;
}

}  // namespace ckpt
