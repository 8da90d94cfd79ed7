// SPDX-License-Identifier: Apache-2.0
#include "plugin/write_path.h"

#include <algorithm>

namespace ckpt {
namespace {

void raise_to(std::atomic<int64_t>& maximum, int64_t value) {
  int64_t before = maximum.load();
  while (before < value && !maximum.compare_exchange_weak(before, value)) {
  }
}

ByteRange piece_at(uint64_t offset, uint64_t length) {
  return {offset, std::min(length, kPieceBytes)};
}

}  // namespace

template <typename Change>
Result<> WritePath::change_locked(BlockRange blocks, EpochObject& epoch, const Change& change) {
  preserve(blocks);           // step 4
  epoch.written.set(blocks);  // step 5
  disk_.regions.unpin(blocks);
  note_heat(blocks);
  disk_.maps.begin_write();
  Result<> outcome = change();
  if (!outcome && outcome.error().kind == ErrorKind::kNoSpace && on_full_()) {
    outcome = change();
  }
  disk_.maps.end_write(disk_.clock.wall());
  if (outcome || !CKPT_PLANTED(skip_step6_on_error)) {
    epoch.unshipped.set(blocks);  // step 6
  }
  return outcome;
}

template <typename Change>
Result<> WritePath::change_piece(ByteRange piece, const Change& change) {
  const BlockRange blocks = blocks_of(piece);
  CKPT_TRY(disk_.regions.pin(blocks));  // step 1
  Result<> outcome;
  {
    const BlockLocks::Hold lock(disk_.locks, blocks);  // step 2
    EpochObject& epoch = disk_.epochs.enter();         // step 3
    outcome = change_locked(blocks, epoch, change);
    disk_.epochs.leave(epoch);
  }
  if (disk_.epochs.current().unshipped.count() >= disk_.batch_blocks &&
      disk_.wake_by_volume.load() && !disk_.shipper.is_awake()) {
    disk_.shipper.wake();
  }
  return outcome;
}

Result<> WritePath::write(uint64_t offset, ConstByteSpan buffer, bool fua) {
  while (!buffer.empty()) {
    const ByteRange piece = piece_at(offset, buffer.size());
    const ConstByteSpan part = buffer.first(piece.length);
    CKPT_TRY(change_piece(piece, [&] { return disk_.image.write(piece.offset, part); }));
    buffer = buffer.subspan(piece.length);
    offset = piece.end();
  }
  return fua ? flush() : Result<>();
}

Result<> WritePath::zero(ByteRange range, bool punch, bool fua) {
  while (range.length > 0) {
    const ByteRange piece = piece_at(range.offset, range.length);
    CKPT_TRY(change_piece(piece, [&] { return disk_.image.zero(piece, punch); }));
    range = {piece.end(), range.length - piece.length};
  }
  return fua ? flush() : Result<>();
}

void WritePath::preserve(BlockRange blocks) {
  EpochObject* const closed = disk_.epochs.begin_preserve();
  if (closed == nullptr) {
    return;
  }
  std::vector<BlockRange> runs;
  if (closed->unshipped.any(blocks)) {
    const SteadyTime since = disk_.clock.steady();
    closed->unshipped.take(blocks, runs);
    for (const BlockRange& run : runs) {
      if (!preserve_run(*closed, run)) {
        // The write goes on: the checkpoint is void, and this write's own bits tell what changed.
        disk_.preserved.lose(Epoch{closed->number.load()});
      }
    }
    note_stall(since);
  }
  disk_.epochs.end_preserve(*closed);
}

Result<> WritePath::preserve_run(EpochObject& closed, BlockRange run) {
  const ByteRange range = bytes_of(run, disk_.geometry.size_bytes);
  PreservedCopy copy{Epoch{closed.number.load()}, range.offset,
                     std::vector<std::byte>(range.length)};
  CKPT_TRY(disk_.image.read(range.offset, copy.data));
  disk_.preserved.put(std::move(copy));
  return {};
}

void WritePath::note_heat(BlockRange blocks) {
  // Not exact, and need not be: it only orders what is shipped first.
  std::atomic<uint16_t>& heat = disk_.heat[blocks.first / disk_.geometry.blocks_per_region()];
  const uint16_t before = heat.load(std::memory_order_relaxed);
  if (before != UINT16_MAX) {
    heat.store(static_cast<uint16_t>(before + 1), std::memory_order_relaxed);
  }
}

void WritePath::note_stall(SteadyTime since) {
  const int64_t stall = (disk_.clock.steady() - since).count();
  raise_to(disk_.stall_epoch_ns, stall);
  raise_to(disk_.stall_max_ns, stall);
}

}  // namespace ckpt
