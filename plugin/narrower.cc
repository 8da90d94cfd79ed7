// SPDX-License-Identifier: Apache-2.0
#include "plugin/narrower.h"

#include <algorithm>
#include <cstring>

#include "plugin/shipper.h"

namespace ckpt {
namespace {

// Compared between two syncs.
constexpr uint64_t kStepBytes = uint64_t{64} << 20U;

}  // namespace

void Narrower::start() {
  cursor_ = 0;
  active_.store(true);
}

void Narrower::stop() { active_.store(false); }

Result<> Narrower::narrow_some() {
  std::vector<BlockRange> equal;
  const ChangeMap& written = disk_.epochs.current().written;
  const uint64_t regions_a_step = std::max<uint64_t>(1, kStepBytes / disk_.geometry.region_bytes);
  for (uint64_t i = 0; i < regions_a_step && active_.load(); ++i) {
    const auto region = written.next_region(cursor_);
    if (!region) {
      stop();
      break;
    }
    cursor_ = *region + 1;
    CKPT_TRY(compare_region(*region, equal));
  }
  if (!equal.empty()) {
    if (!CKPT_PLANTED(narrow_by_digest_before_primary_sync)) {
      CKPT_TRY(disk_.sync_image());
    }
    clear_written(equal);
  }
  return {};
}

// A region that is a hole on both sides is equal without being read.
Result<bool> Narrower::is_hole(BlockRange blocks, std::vector<BlockRange>& equal) {
  const ByteRange range = bytes_of(blocks, disk_.geometry.size_bytes);
  CKPT_ASSIGN(const auto theirs, store_.next_confirmed_data(range.offset));
  const BlockLocks::Hold lock(disk_.locks, blocks);
  CKPT_ASSIGN(const auto ours, disk_.image.next_data(range.offset));
  const bool hole =
      (!theirs || theirs->offset >= range.end()) && (!ours || ours->offset >= range.end());
  if (hole) {
    std::vector<BlockRange> taken;
    disk_.epochs.current().unshipped.take(blocks, taken);
    equal.push_back(blocks);
  }
  return hole;
}

Result<> Narrower::compare_region(uint64_t region, std::vector<BlockRange>& equal) {
  CKPT_ASSIGN(const bool hole, is_hole(disk_.geometry.region_blocks(region), equal));
  if (hole) {
    return {};
  }
  const ChangeMap& written = disk_.epochs.current().written;
  BlockRange rest = disk_.geometry.region_blocks(region);
  for (auto run = written.next_run(rest); run; run = written.next_run(rest)) {
    const uint64_t end = std::min(run->first + kLockedBlocksMax, run->end);
    CKPT_TRY(compare_chunk({run->first, end}, equal));
    rest.first = end;
  }
  return {};
}

Result<> Narrower::compare_chunk(BlockRange chunk, std::vector<BlockRange>& equal) {
  const ByteRange range = bytes_of(chunk, disk_.geometry.size_bytes);
  std::vector<std::byte> ours(range.length);
  std::vector<std::byte> theirs(range.length);
  CKPT_TRY(store_.read_confirmed(range.offset, theirs));
  const BlockLocks::Hold lock(disk_.locks, chunk);
  CKPT_TRY(disk_.image.read(range.offset, ours));
  std::vector<BlockRange> taken;
  for (uint64_t block = chunk.first; block < chunk.end; ++block) {
    const uint64_t at = (block - chunk.first) * kBlockBytes;
    const uint64_t length = std::min(kBlockBytes, range.length - at);
    if (std::memcmp(&ours[at], &theirs[at], length) == 0) {
      // The store has it. A write from here on sets the bit again: clear_written() looks for that.
      disk_.epochs.current().unshipped.take({block, block + 1}, taken);
      equal.push_back({block, block + 1});
    }
  }
  return {};
}

void Narrower::clear_written(const std::vector<BlockRange>& equal) {
  std::vector<BlockRange> taken;
  EpochObject& epoch = disk_.epochs.current();
  for (const BlockRange& blocks : equal) {
    const BlockLocks::Hold lock(disk_.locks, blocks);
    // A range of which a part was written meanwhile stays as it is: changed is a superset.
    if (!epoch.unshipped.any(blocks)) {
      taken.clear();
      epoch.written.take(blocks, taken);
    }
  }
}

}  // namespace ckpt
