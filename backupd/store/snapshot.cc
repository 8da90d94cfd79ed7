// SPDX-License-Identifier: Apache-2.0
#include "backupd/store/snapshot.h"

#include <algorithm>

namespace ckpt {
namespace {

constexpr std::chrono::seconds kLook{1};  // a notice cannot be missed; this is against surprises

}  // namespace

void Snapshot::set_checkpoint(const CheckpointInfo& checkpoint) {
  const MutexLock lock(mutex_);
  checkpoint_ = checkpoint;
}

void Snapshot::choose(const BlockSet& wanted) {
  const MutexLock lock(mutex_);
  BlockRange rest{0, block_count(size_bytes_)};
  while (const auto gap = rest.empty() ? std::nullopt : wanted.find(rest, false)) {
    ahead_.add(*gap);
    rest.first = gap->end;
  }
}

Result<bool> Snapshot::step() {
  const MutexLock lock(mutex_);
  while (preserving_.load() > 0) {
    preserved_.wait_for(mutex_, kLook);
  }
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
  ++preserving_;
  const MutexLock lock(mutex_);
  for (const Extent& extent : extents) {
    if (CKPT_PLANTED(apply_before_handing_over)) {
      break;
    }
    BlockRange blocks = blocks_of(ByteRange{extent.offset, extent.length});
    blocks.first = std::max(blocks.first, next_block_);
    const auto preserved = ended_ ? Result<>() : preserve_blocks(blocks);
    if (!preserved) {
      ended_ = preserved.error();
    }
  }
  --preserving_;
  preserved_.notify_all();
}

Result<> Snapshot::preserve_blocks(BlockRange blocks) {
  while (const auto gap = blocks.empty() ? std::nullopt : ahead_.find(blocks, false)) {
    const ByteRange range = bytes_of(*gap, size_bytes_);
    for (uint64_t offset = range.offset; offset < range.end();) {
      if (must_end_()) {
        return fail(ErrorKind::kBusy,
                    "the export was ended: its destination is slower than what changes, and a "
                    "checkpoint or a rollback had to wait for it; export to a faster one");
      }
      CKPT_ASSIGN(offset, hand_over({offset, range.end() - offset}));
    }
    ahead_.add(*gap);
    blocks.first = gap->end;
  }
  return {};
}

Result<uint64_t> Snapshot::hand_over(ByteRange range) {
  if (!has_begun_) {
    CKPT_TRY(sink_.begin(checkpoint_, size_bytes_));
    has_begun_ = true;
  }
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
