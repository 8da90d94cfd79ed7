// SPDX-License-Identifier: Apache-2.0
#include "backupd/relay_parcel.h"

#include <algorithm>

#include "common/checksum.h"

namespace ckpt {
namespace {

constexpr uint64_t kParcelBytes = uint64_t{4} << 20U;
constexpr size_t kParcelExtentsMax = 4096;
// Of one question: as much is in memory twice while it is answered.
constexpr uint64_t kComparedBlocksMax = 4096;
static_assert(kComparedBlocksMax <= kDigestsMax);
// Any number will do, as long as both sides take the same.
constexpr uint64_t kRelaySeed = 0x636b70747265;

// How many of the parts, from the first on, are data to be compared that adjoins.
size_t run_of(std::span<const RelayPart> parts) {
  size_t count = 0;
  uint64_t blocks = 0;
  for (const RelayPart& part : parts) {
    blocks += blocks_of(part.range).count();
    const bool adjoins = count == 0 || parts[count - 1].range.end() == part.range.offset;
    if (!part.is_compared || part.data.empty() || !adjoins ||
        (count > 0 && blocks > kComparedBlocksMax)) {
      break;
    }
    ++count;
  }
  return count;
}

}  // namespace

RelayParcel::RelayParcel(StoreLink& further, uint64_t size_bytes, bool is_fresh, Send send)
    : further_(further),
      size_bytes_(size_bytes),
      is_fresh_(is_fresh),
      send_(std::move(send)),
      draft_(kParcelBytes) {
  draft_.begin(0);
}

Result<> RelayParcel::add(std::span<const RelayPart> parts) {
  while (!parts.empty()) {
    const RelayPart& part = parts.front();
    if (const size_t run = is_fresh_ ? 0 : run_of(parts); run > 0) {
      CKPT_TRY(compare_data(parts.first(run)));
      parts = parts.subspan(run);
      continue;
    }
    if (!part.data.empty()) {
      CKPT_TRY(add_data(part.range, part.data));
    } else if (!part.is_compared) {
      CKPT_TRY(add_hole(part.range));
    } else if (!is_fresh_) {
      CKPT_TRY(compare_hole(part.range));
    }
    parts = parts.subspan(1);
  }
  return {};
}

Result<> RelayParcel::flush() {
  if (draft_.empty()) {
    return {};
  }
  CKPT_TRY(send_(draft_.extents(), draft_.data()));
  draft_.begin(0);
  return {};
}

// The extents of a batch ascend.
Result<> RelayParcel::make_room(ByteRange range, uint64_t data_bytes) {
  const bool follows =
      draft_.empty() ||
      draft_.extents().back().offset + draft_.extents().back().length <= range.offset;
  const bool fits = draft_.data().size() + data_bytes <= kParcelBytes &&
                    draft_.extents().size() + data_bytes / kBlockBytes < kParcelExtentsMax;
  return follows && fits ? Result<>() : flush();
}

Result<> RelayParcel::add_data(ByteRange range, ConstByteSpan data) {
  CKPT_TRY(make_room(range, data.size()));
  const Transfer transfer{range.offset, draft_.room(data.size())};
  copy_bytes(data, transfer.buffer);
  draft_.add({&transfer, 1});
  return {};
}

Result<> RelayParcel::add_hole(ByteRange range) {
  CKPT_TRY(make_room(range, 0));
  draft_.add_hole(range);
  return {};
}

Result<> RelayParcel::compare_data(std::span<const RelayPart> parts) {
  const BlockRange blocks{parts.front().range.offset / kBlockBytes,
                          block_count(parts.back().range.end())};
  CKPT_ASSIGN(const auto theirs, further_.digests({blocks, size_bytes_, kRelaySeed}));
  if (theirs.size() != blocks.count()) {
    return fail(ErrorKind::kCorrupt, "the further back-up answers with other digests");
  }
  for (const RelayPart& part : parts) {
    for (uint64_t at = 0; at < part.data.size(); at += kBlockBytes) {
      const ConstByteSpan block =
          ConstByteSpan(part.data).subspan(at, std::min(kBlockBytes, part.data.size() - at));
      const ByteRange range{part.range.offset + at, block.size()};
      if (digest_of(block, kRelaySeed) != theirs[range.offset / kBlockBytes - blocks.first]) {
        CKPT_TRY(add_data(range, block));
      }
    }
  }
  return {};
}

// What is data there, in whole blocks.
Result<> RelayParcel::compare_hole(ByteRange range) {
  uint64_t offset = range.offset;
  while (offset < range.end()) {
    CKPT_ASSIGN(const auto data, further_.next_confirmed_data(offset));
    if (!data || data->offset >= range.end()) {
      return {};
    }
    const uint64_t begin = std::max(offset, data->offset / kBlockBytes * kBlockBytes);
    const uint64_t end = std::min(range.end(), block_count(data->end()) * kBlockBytes);
    if (end <= begin) {
      return fail(ErrorKind::kCorrupt, "the further back-up names data where none can be");
    }
    CKPT_TRY(add_hole({begin, end - begin}));
    offset = end;
  }
  return {};
}

}  // namespace ckpt
