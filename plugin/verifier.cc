// SPDX-License-Identifier: Apache-2.0
#include "plugin/verifier.h"

#include <algorithm>
#include <cstring>

#include "common/checksum.h"
#include "plugin/shipper.h"

namespace ckpt {
namespace {

// A block that differs is looked at again while checkpoints come in between; so often, then it
// counts.
constexpr int kLooks = 50;
// Of which the store's digests are asked for at once.
constexpr uint64_t kWindowBlocks = 4096;
static_assert(kWindowBlocks <= kDigestsMax);

Unexpected stopped() { return fail(ErrorKind::kVoid, "verify was stopped"); }

}  // namespace

Verifier::Verifier(Disk& disk, StoreLink& store, uint64_t seed)
    : disk_(disk),
      store_(store),
      seed_(seed),
      zero_(digest_of(std::vector<std::byte>(kBlockBytes), seed)) {}

Result<VerifyOutcome> Verifier::verify(const Progress& progress) {
  const uint64_t size_bytes = disk_.geometry.size_bytes;
  VerifyOutcome outcome;
  uint64_t offset = 0;
  while (offset < size_bytes) {
    CKPT_ASSIGN(const uint64_t data, skip_holes(offset));
    count_holes({offset, data - offset}, outcome);
    offset = data;
    if (data < size_bytes) {
      const uint64_t first = data / kBlockBytes;
      const BlockRange window{first, std::min(first + kWindowBlocks, disk_.geometry.blocks())};
      CKPT_TRY(verify_window(window, outcome, progress));
      offset = bytes_of(window, size_bytes).end();
    }
    if (!progress(offset, size_bytes)) {
      return stopped();
    }
  }
  return outcome;
}

// One question to the store for all of it. Where a checkpoint comes in between, what it changed is
// looked at again.
Result<> Verifier::verify_window(BlockRange window, VerifyOutcome& outcome,
                                 const Progress& progress) {
  CKPT_ASSIGN(const auto theirs, store_.digests({window, disk_.geometry.size_bytes, seed_}));
  for (uint64_t first = window.first; first < window.end; first += kLockedBlocksMax) {
    const BlockRange chunk{first, std::min(first + kLockedBlocksMax, window.end)};
    const auto digests = std::span(theirs).subspan(first - window.first, chunk.count());
    CKPT_TRY(verify_chunk(chunk, digests, outcome));
    if (!progress(first * kBlockBytes, disk_.geometry.size_bytes)) {
      return stopped();
    }
  }
  return {};
}

// Where either side has data next, down to a block.
Result<uint64_t> Verifier::skip_holes(uint64_t offset) {
  CKPT_ASSIGN(const auto ours, disk_.image.next_data(offset));
  CKPT_ASSIGN(const auto theirs, store_.next_confirmed_data(offset));
  uint64_t next = disk_.geometry.size_bytes;
  next = ours ? std::min(next, ours->offset) : next;
  next = theirs ? std::min(next, theirs->offset) : next;
  return next == disk_.geometry.size_bytes ? next
                                           : std::max(offset, next / kBlockBytes * kBlockBytes);
}

void Verifier::count_holes(ByteRange range, VerifyOutcome& outcome) const {
  if (range.length == 0) {
    return;
  }
  uint64_t changed = 0;
  const BlockRange blocks = blocks_of(range);
  const ChangeMap& written = disk_.epochs.current().written;
  const uint64_t first = blocks.first / disk_.geometry.blocks_per_region();
  for (auto region = written.next_region(first); region;
       region = written.next_region(*region + 1)) {
    BlockRange rest = disk_.geometry.region_blocks(*region);
    rest = {std::max(rest.first, blocks.first), std::min(rest.end, blocks.end)};
    for (auto run = written.next_run(rest); run; run = written.next_run(rest)) {
      changed += bytes_of(*run, disk_.geometry.size_bytes).length;
      rest.first = run->end;
    }
  }
  changed = std::min(changed, range.length);
  outcome.skipped_bytes += changed;
  outcome.checked_bytes += range.length - changed;
}

Result<> Verifier::verify_chunk(BlockRange chunk, std::span<const Digest> theirs,
                                VerifyOutcome& outcome) {
  CKPT_ASSIGN(const bool hole, is_hole(chunk, theirs));
  if (hole) {
    count_holes(bytes_of(chunk, disk_.geometry.size_bytes), outcome);
    return {};
  }
  bool changed = false;
  CKPT_ASSIGN(const bool equal, has_digests(chunk, theirs, changed));
  if (equal && !changed) {
    outcome.checked_bytes += bytes_of(chunk, disk_.geometry.size_bytes).length;
    return {};
  }
  for (uint64_t block = chunk.first; block < chunk.end; ++block) {
    CKPT_TRY(verify_block({block, block + 1}, outcome));
  }
  return {};
}

Result<> Verifier::verify_block(BlockRange block, VerifyOutcome& outcome) {
  const uint64_t bytes = bytes_of(block, disk_.geometry.size_bytes).length;
  for (int look = 0; look < kLooks; ++look) {
    const auto before = store_.status().confirmed;
    bool changed = false;
    CKPT_ASSIGN(const bool equal, is_equal(block, changed));
    if (changed) {
      outcome.skipped_bytes += bytes;
      return {};
    }
    const auto after = store_.status().confirmed;
    const bool same =
        before.has_value() == after.has_value() && (!before || before->id == after->id);
    if (equal || same) {
      outcome.checked_bytes += bytes;
      if (!equal) {
        add_mismatch(block, outcome);
      }
      return {};
    }
  }
  outcome.skipped_bytes += bytes;
  return {};
}

// A short last block has a digest of its own, and is read.
Result<bool> Verifier::is_hole(BlockRange blocks, std::span<const Digest> theirs) {
  if (!std::ranges::all_of(theirs, [this](const Digest& one) { return one == zero_; })) {
    return false;
  }
  const ByteRange range = bytes_of(blocks, disk_.geometry.size_bytes);
  CKPT_ASSIGN(const auto ours, disk_.image.next_data(range.offset));
  return !ours || ours->offset >= range.end();
}

Result<std::vector<std::byte>> Verifier::read_unchanged(BlockRange blocks) {
  const ByteRange range = bytes_of(blocks, disk_.geometry.size_bytes);
  const BlockLocks::Hold lock(disk_.locks, blocks);
  if (disk_.is_changed(blocks)) {
    return std::vector<std::byte>();
  }
  std::vector<std::byte> ours(range.length);
  CKPT_TRY(disk_.image.read(range.offset, ours));
  return ours;
}

// changed: some of it is, before or after it was read; then the answer means nothing.
Result<bool> Verifier::has_digests(BlockRange blocks, std::span<const Digest> theirs,
                                   bool& changed) {
  CKPT_ASSIGN(const auto ours, read_unchanged(blocks));
  changed = ours.empty() || disk_.is_changed(blocks);
  ConstByteSpan rest(ours);
  for (size_t i = 0; !changed && i < theirs.size(); ++i) {
    const ConstByteSpan block = rest.first(std::min<uint64_t>(rest.size(), kBlockBytes));
    if (digest_of(block, seed_) != theirs[i]) {
      return false;
    }
    rest = rest.subspan(block.size());
  }
  return true;
}

// The same, by the content itself.
Result<bool> Verifier::is_equal(BlockRange blocks, bool& changed) {
  CKPT_ASSIGN(const auto ours, read_unchanged(blocks));
  changed = ours.empty();
  if (changed) {
    return false;
  }
  std::vector<std::byte> theirs(ours.size());
  CKPT_TRY(store_.read_confirmed(blocks.first * kBlockBytes, theirs));
  changed = disk_.is_changed(blocks);
  return std::memcmp(ours.data(), theirs.data(), ours.size()) == 0;
}

void Verifier::add_mismatch(BlockRange block, VerifyOutcome& outcome) const {
  const ByteRange range = bytes_of(block, disk_.geometry.size_bytes);
  outcome.mismatched_bytes += range.length;
  if (!outcome.mismatches.empty() && outcome.mismatches.back().end() == range.offset) {
    outcome.mismatches.back().length += range.length;
  } else if (outcome.mismatches.size() < kMismatchesMax) {
    outcome.mismatches.push_back(range);
  }
}

}  // namespace ckpt
