// SPDX-License-Identifier: Apache-2.0
#include "plugin/rollback.h"

#include <algorithm>
#include <set>
#include <utility>

#include "common/phase.h"

namespace ckpt {
namespace {

constexpr uint64_t kPartBytes = 65536;  // of one transfer; a piece has 16 in flight

// All blocks that may differ from the checkpoint.
uint64_t changed_total(const Disk& disk) {
  return std::min(disk.epochs.current().written.count() * kBlockBytes, disk.geometry.size_bytes);
}

// Writes what the store hands over to the image: its data, zeroes or not, and its holes as holes.
class ContentWriter final : public ContentSink {
 public:
  ContentWriter(Disk& disk, uint64_t total_bytes, const Progress& progress)
      : disk_(disk), total_bytes_(total_bytes), progress_(progress) {}

  Result<> write(uint64_t offset, ConstByteSpan data) override {
    std::vector<Transfer> transfers;
    for (uint64_t at = 0; at < data.size(); at += kPartBytes) {
      const auto part = data.subspan(at, std::min<uint64_t>(kPartBytes, data.size() - at));
      // A transfer may also read; write_many() only looks at it.
      transfers.push_back({offset + at, {const_cast<std::byte*>(part.data()), part.size()}});
    }
    return count(data.size(), [&] { return disk_.image.write_many(transfers); });
  }
  Result<> zero(ByteRange range) override {
    return count(range.length, [&] { return disk_.image.zero(range, true); });
  }
  [[nodiscard]] uint64_t done_bytes() const { return done_bytes_; }

 private:
  template <typename Act>
  Result<> count(uint64_t bytes, const Act& act) {
    disk_.maps.begin_write();
    auto written = act();
    disk_.maps.end_write(disk_.clock.wall());
    const uint64_t before = std::exchange(done_bytes_, done_bytes_ + bytes);
    if (before / kPieceBytes != done_bytes_ / kPieceBytes || done_bytes_ == total_bytes_) {
      // It is on record and must be finished: nobody can stop it here.
      progress_(done_bytes_, total_bytes_);
    }
    return written;
  }

  Disk& disk_;
  const uint64_t total_bytes_;
  const Progress& progress_;
  uint64_t done_bytes_ = 0;
};

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
  CKPT_TRY(check_store());
  if (!CKPT_PLANTED(skip_rollback_sync)) {
    CKPT_TRY(disk_.image.sync());  // step 4
  }
  CKPT_TRY(finish());
  return restored_bytes;
}

// Behind a link another store may have answered from some instant on: an older copy that was put in
// its place.
Result<> Rollback::check_store() {
  CKPT_ASSIGN(const StoreGreeting greeting, store_.begin_session());
  return decide_handshake(record_.get(), greeting) == HandshakeRow::kRollBack
             ? Result<>()
             : Result<>(fail(ErrorKind::kFenced,
                             "the store is no longer the one that the rollback began with"));
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
  ContentWriter writer(disk_, changed_total(disk_), progress);
  std::vector<ByteRange> ranges;
  for (auto region = written.next_region(0); region; region = written.next_region(*region + 1)) {
    BlockRange rest = disk_.geometry.region_blocks(*region);
    for (auto run = written.next_run(rest); run; run = written.next_run(rest)) {
      ranges.push_back(bytes_of(*run, disk_.geometry.size_bytes));
      rest.first = run->end;
      if (ranges.size() == kRangesMax) {
        CKPT_TRY(store_.read_ranges(ranges, writer));
        ranges.clear();
      }
    }
  }
  if (!ranges.empty()) {
    CKPT_TRY(store_.read_ranges(ranges, writer));
  }
  return writer.done_bytes();
}

Result<> Rollback::finish() {
  // While marks cannot be written, what is written from here on is not marked either.
  const bool everything = disk_.regions.is_everything();
  // Before the record says so: who keeps it would put a failure that is over on record again.
  disk_.trouble.rolled_back();
  CKPT_TRY(record_.change([this, everything](VolumeRecord& record) {
    const RollbackTarget target = *record.rollback;
    record.forks.push_back(target.checkpoint);
    record.timeline = target.to;
    if (record.last) {
      record.last->id.timeline = target.to;
    }
    record.intent.reset();
    record.rollback.reset();
    record.everything = everything;
    record.suspect = disk_.trouble.is_suspect();
    record.fenced = record.fenced || target.fence;
  }));
  // Recorded, then cleared: in the other order a crash would leave changed blocks without a bit.
  disk_.epochs.current().written.clear();
  disk_.epochs.current().unshipped.clear();
  return {};
}

}  // namespace ckpt
