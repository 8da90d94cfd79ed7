// SPDX-License-Identifier: Apache-2.0
#include "plugin/narrower.h"

#include <algorithm>

#include "common/checksum.h"
#include "plugin/shipper.h"

namespace ckpt {
namespace {

// Compared between two syncs.
constexpr uint64_t kNarrowedBytes = uint64_t{64} << 20U;

}  // namespace

void Narrower::start() {
  cursor_ = 0;
  their_hole_ = {};
  active_.store(true);
}

void Narrower::stop() { active_.store(false); }

Result<> Narrower::narrow_some() {
  std::vector<BlockRange> equal;
  const ChangeMap& written = disk_.epochs.current().written;
  const uint64_t regions_a_step = std::max<uint64_t>(1, kNarrowedBytes / disk_.geometry.region_bytes);
  bool ended = false;
  for (uint64_t i = 0; i < regions_a_step && active_.load(); ++i) {
    const auto region = written.next_region(cursor_);
    if (!region) {
      ended = true;
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
  if (ended) {
    stop();  // not before: whoever waits for the end wants what it found
  }
  return {};
}

// Each answer is about all up to where there is data: a hole is asked for once.
Result<uint64_t> Narrower::next_of_theirs(uint64_t offset) {
  if (offset < their_hole_.offset || offset >= their_hole_.end()) {
    CKPT_ASSIGN(const auto data, store_.next_confirmed_data(offset));
    const uint64_t end = data ? std::max(data->offset, offset) : disk_.geometry.size_bytes;
    their_hole_ = {offset, end - offset};
  }
  return their_hole_.end();
}

// A region that is a hole on both sides is equal without being read.
Result<bool> Narrower::is_hole(BlockRange blocks, std::vector<BlockRange>& equal) {
  const ByteRange range = bytes_of(blocks, disk_.geometry.size_bytes);
  CKPT_ASSIGN(const uint64_t theirs, next_of_theirs(range.offset));
  const BlockLocks::Hold lock(disk_.locks, blocks);
  CKPT_ASSIGN(const auto ours, disk_.image.next_data(range.offset));
  const bool hole = theirs >= range.end() && (!ours || ours->offset >= range.end());
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
  const BlockRange blocks = disk_.geometry.region_blocks(region);
  const ChangeMap& written = disk_.epochs.current().written;
  std::vector<Digest> theirs;
  uint64_t asked = blocks.first;  // theirs begins there
  BlockRange rest = blocks;
  for (auto run = written.next_run(rest); run; run = written.next_run(rest)) {
    if (run->first >= asked + theirs.size()) {
      const BlockRange next = next_question({run->first, blocks.end});
      asked = next.first;
      CKPT_ASSIGN(theirs, store_.digests({next, disk_.geometry.size_bytes, seed_}));
    }
    const uint64_t end = std::min({run->first + kLockedBlocksMax, run->end, asked + theirs.size()});
    const auto digests = std::span(theirs).subspan(run->first - asked, end - run->first);
    CKPT_TRY(compare_chunk({run->first, end}, digests, equal));
    rest.first = end;
  }
  return {};
}

// From the first of these that count as written up to the last, as many as may be asked for.
BlockRange Narrower::next_question(BlockRange blocks) const {
  const ChangeMap& written = disk_.epochs.current().written;
  blocks.end = std::min(blocks.end, blocks.first + kDigestsMax);
  BlockRange question{blocks.first, blocks.first + 1};
  for (auto run = written.next_run(blocks); run; run = written.next_run(blocks)) {
    question.end = run->end;
    blocks.first = run->end;
  }
  return question;
}

Result<> Narrower::compare_chunk(BlockRange chunk, std::span<const Digest> theirs,
                                 std::vector<BlockRange>& equal) {
  const ByteRange range = bytes_of(chunk, disk_.geometry.size_bytes);
  std::vector<std::byte> ours(range.length);
  const BlockLocks::Hold lock(disk_.locks, chunk);
  CKPT_TRY(disk_.image.read(range.offset, ours));
  std::vector<BlockRange> taken;
  for (uint64_t block = chunk.first; block < chunk.end; ++block) {
    const uint64_t at = (block - chunk.first) * kBlockBytes;
    const uint64_t length = std::min(kBlockBytes, range.length - at);
    if (digest_of(ConstByteSpan(ours).subspan(at, length), seed_) == theirs[block - chunk.first]) {
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
    if (epoch.unshipped.any(blocks)) {
      CKPT_PROBE(written_while_it_was_compared);
    } else {
      CKPT_PROBE(found_equal);
      taken.clear();
      epoch.written.take(blocks, taken);
    }
  }
}

}  // namespace ckpt
