// SPDX-License-Identifier: Apache-2.0
#include "plugin/rollback.h"

#include <algorithm>
#include <set>

#include "common/aligned_buffer.h"
#include "plugin/phase.h"

namespace ckpt {
namespace {

constexpr uint64_t kPartBytes = 65536;  // of one transfer; a piece has 16 in flight

// All blocks that may differ from the checkpoint.
uint64_t changed_total(const Disk& disk) {
  return std::min(disk.epochs.current().written.count() * kBlockBytes, disk.geometry.size_bytes);
}

}  // namespace

Result<> Rollback::begin(const CheckpointId& checkpoint, bool fence) {
  const Uuid to = random_.uuid();
  return record_.change([&](VolumeRecord& record) {
    record.rollback = RollbackTarget{checkpoint, to, fence};
  });
}

Result<uint64_t> Rollback::run(const Progress& progress) {
  const PhaseScope phase(Phase::kRollingBack);
  const RollbackTarget target = *record_.get().rollback;
  CKPT_TRY(mark_changed());
  CKPT_TRY(store_.roll_back(target.checkpoint, target.to));  // step 2
  CKPT_ASSIGN(const uint64_t restored_bytes, restore_changed(progress));
  CKPT_TRY(disk_.image.sync());  // step 4
  CKPT_TRY(finish());
  return restored_bytes;
}

// A first copy or a resync sets written bits without marks; what is written back needs them.
Result<> Rollback::mark_changed() {
  const ChangeMap& written = disk_.epochs.current().written;
  std::set<uint64_t> regions;
  for (auto region = written.next_region(0); region; region = written.next_region(*region + 1)) {
    regions.insert(*region);
  }
  return disk_.regions.mark_each(regions);
}

Result<uint64_t> Rollback::restore_changed(const Progress& progress) {
  const ChangeMap& written = disk_.epochs.current().written;
  const uint64_t total = changed_total(disk_);
  uint64_t done = 0;
  for (auto region = written.next_region(0); region; region = written.next_region(*region + 1)) {
    BlockRange rest = disk_.geometry.region_blocks(*region);
    for (auto run = written.next_run(rest); run; run = written.next_run(rest)) {
      run->end = std::min(run->end, run->first + kPieceBytes / kBlockBytes);
      disk_.maps.begin_write();
      const auto restored = restore_run(*run);
      disk_.maps.end_write(disk_.clock.wall());
      CKPT_ASSIGN(const uint64_t bytes, restored);
      done += bytes;
      rest.first = run->end;
    }
    // It is on record and must be finished: nobody can stop it here.
    progress(done, total);
  }
  return done;
}

// Holes of the store's image become holes again; data is written where it differs from zero or not.
Result<uint64_t> Rollback::restore_run(BlockRange run) {
  const ByteRange range = bytes_of(run, disk_.geometry.size_bytes);
  uint64_t offset = range.offset;
  while (offset < range.end()) {
    CKPT_ASSIGN(const auto data, store_.next_confirmed_data(offset));
    const uint64_t begin = data ? std::clamp(data->offset, offset, range.end()) : range.end();
    if (begin > offset) {
      CKPT_TRY(disk_.image.zero({offset, begin - offset}, true));
    }
    const uint64_t end = data ? std::clamp(data->end(), begin, range.end()) : begin;
    CKPT_TRY(write_back({begin, end - begin}));
    offset = end;
  }
  return range.length;
}

Result<> Rollback::write_back(ByteRange range) {
  if (range.length == 0) {
    return {};
  }
  const AlignedBuffer memory(range.length);
  const ByteSpan buffer = memory.span();
  CKPT_TRY(store_.read_confirmed(range.offset, buffer));
  std::vector<Transfer> transfers;
  for (uint64_t at = 0; at < range.length; at += kPartBytes) {
    const uint64_t length = std::min(kPartBytes, range.length - at);
    transfers.push_back({range.offset + at, buffer.subspan(at, length)});
  }
  return disk_.image.write_many(transfers);
}

Result<> Rollback::finish() {
  // While marks cannot be written, what is written from here on is not marked either.
  const bool everything = disk_.regions.is_everything();
  CKPT_TRY(record_.change([everything](VolumeRecord& record) {
    const RollbackTarget target = *record.rollback;
    record.forks.push_back(target.checkpoint);
    record.timeline = target.to;
    if (record.last) {
      record.last->id.timeline = target.to;
    }
    record.intent.reset();
    record.rollback.reset();
    record.everything = everything;
    record.suspect = false;
    record.fenced = record.fenced || target.fence;
  }));
  // Recorded, then cleared: in the other order a crash would leave changed blocks without a bit.
  disk_.epochs.current().written.clear();
  disk_.epochs.current().unshipped.clear();
  disk_.trouble.rolled_back();
  return {};
}

}  // namespace ckpt
