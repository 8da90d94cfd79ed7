// SPDX-License-Identifier: Apache-2.0
#include "plugin/write_path.h"

#include <algorithm>
#include <optional>
#include <utility>

namespace ckpt {
namespace {

void raise_to(std::atomic<int64_t>& maximum, int64_t value) {
  int64_t before = maximum.load();
  while (before < value && !maximum.compare_exchange_weak(before, value)) {
  }
}

// What a write holds, given back also when memory runs out in the middle of it.
class Pin {
 public:
  Pin(RegionMap& regions, BlockRange blocks) : regions_(&regions), blocks_(blocks) {}
  ~Pin() { release(); }
  Pin(const Pin&) = delete;
  Pin& operator=(const Pin&) = delete;
  void release() {
    if (RegionMap* const regions = std::exchange(regions_, nullptr); regions != nullptr) {
      regions->unpin(blocks_);
    }
  }

 private:
  RegionMap* regions_;
  BlockRange blocks_;
};

class EpochReference {
 public:
  explicit EpochReference(Epochs& epochs) : epochs_(epochs), epoch_(epochs.enter()) {}
  ~EpochReference() { epochs_.leave(epoch_); }
  EpochReference(const EpochReference&) = delete;
  EpochReference& operator=(const EpochReference&) = delete;
  [[nodiscard]] EpochObject& epoch() const { return epoch_; }

 private:
  Epochs& epochs_;
  EpochObject& epoch_;
};

// The closed epoch, held while its blocks are preserved: unless kept() was called, copies are
// missing.
class ClosedHold {
 public:
  explicit ClosedHold(Disk& disk) : disk_(disk), epoch_(disk.epochs.begin_preserve()) {}
  ~ClosedHold() {
    if (epoch_ == nullptr) {
      return;
    }
    if (!kept_) {
      // The write goes on: the checkpoint is void, and this write's own bits tell what changed.
      CKPT_PROBE(copy_was_lost);
      disk_.preserved.lose(Epoch{epoch_->number.load()});
    }
    disk_.epochs.end_preserve(*epoch_);
  }
  ClosedHold(const ClosedHold&) = delete;
  ClosedHold& operator=(const ClosedHold&) = delete;
  [[nodiscard]] EpochObject* epoch() const { return epoch_; }
  void kept() { kept_ = true; }

 private:
  Disk& disk_;
  EpochObject* epoch_;
  bool kept_ = false;
};

ByteRange piece_at(uint64_t offset, uint64_t length) {
  return {offset, std::min(length, kPieceBytes)};
}

}  // namespace

template <typename Change>
Result<> WritePath::change_image(const Change& change) {
  disk_.maps.begin_write();
  Result<> outcome = change();
  if (!outcome && outcome.error().kind == ErrorKind::kNoSpace && on_full_()) {
    CKPT_PROBE(write_got_the_reserve);
    outcome = change();
  }
  disk_.maps.end_write(disk_.clock.wall());
  return outcome;
}

template <typename Change>
Result<> WritePath::change_piece(ByteRange piece, const Change& change) {
  const BlockRange blocks = blocks_of(piece);
  CKPT_TRY(disk_.regions.pin(blocks));  // step 1
  Pin pin(disk_.regions, blocks);
  Result<> outcome;
  {
    std::optional<EpochReference> reference;
    if (CKPT_PLANTED(reference_before_lock)) {
      reference.emplace(disk_.epochs);
    }
    const BlockLocks::Hold lock(disk_.locks, blocks);  // step 2
    if (!reference) {
      reference.emplace(disk_.epochs);  // step 3
    }
    EpochObject& epoch = reference->epoch();
    if (!CKPT_PLANTED(preserve_after_write)) {
      preserve(blocks, epoch);  // step 4
    }
    epoch.written.set(blocks);  // step 5
    pin.release();
    note_heat(blocks);
    outcome = change_image(change);
    if (CKPT_PLANTED(preserve_after_write)) {
      preserve(blocks, epoch);
    }
    if (!outcome) {
      CKPT_PROBE(write_failed);
    }
    if (outcome || !CKPT_PLANTED(skip_step6_on_error)) {
      epoch.unshipped.set(blocks);  // step 6
    }
  }
  wake_shipper();
  return outcome;
}

void WritePath::wake_shipper() {
  if (disk_.epochs.current().unshipped.count() >= disk_.batch_blocks &&
      disk_.wake_by_volume.load() && !disk_.shipper.is_awake()) {
    disk_.shipper.wake();
  }
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

// A writer of the closed epoch preserves nothing: what it writes belongs to that epoch, and the
// bits stay for the shipper. So of one block there is at most one copy an epoch, newer than all
// reads.
void WritePath::preserve(BlockRange blocks, const EpochObject& own) {
  ClosedHold closed(disk_);
  const bool is_own = closed.epoch() == &own && !CKPT_PLANTED(preserve_own_epoch);
  if (closed.epoch() == nullptr || is_own || !closed.epoch()->unshipped.any(blocks)) {
    closed.kept();
    return;
  }
  CKPT_PROBE(write_to_a_frozen_block);
  const SteadyTime since = disk_.clock.steady();
  std::vector<BlockRange> runs;
  closed.epoch()->unshipped.take(blocks, runs);
  const Epoch number{closed.epoch()->number.load()};
  for (const BlockRange& run : runs) {
    disk_.preserved.keep(number, bytes_of(run, disk_.geometry.size_bytes), disk_.image);
  }
  closed.kept();
  note_stall(since);
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
