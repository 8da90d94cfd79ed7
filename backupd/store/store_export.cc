// SPDX-License-Identifier: Apache-2.0
// How a store hands over a checkpoint, whole or in parts, while later ones come to exist.
#include "backupd/store/store.h"

namespace ckpt {
namespace {

// How long a checkpoint or rollback waits for an export's destination before the export is ended.
constexpr std::chrono::seconds kExportPatience{2};

// Until its end the applier sees to a snapshot.
class SnapshotHold {
 public:
  SnapshotHold(Applier& applier, Snapshot& snapshot) : applier_(applier), snapshot_(snapshot) {}
  ~SnapshotHold() { applier_.end_snapshot(snapshot_); }
  SnapshotHold(const SnapshotHold&) = delete;
  SnapshotHold& operator=(const SnapshotHold&) = delete;

 private:
  Applier& applier_;
  Snapshot& snapshot_;
};

// What no relay may be given.
Result<> pass_to(RelaySink& sink, const Batch& batch) {
  uint64_t taken = 0;
  for (const Extent& extent : batch.extents) {
    const bool is_data = extent.kind == ExtentKind::kData;
    CKPT_TRY(
        is_data ? sink.write(extent.offset, ConstByteSpan(batch.data).subspan(taken, extent.length))
                : sink.zero({extent.offset, extent.length}));
    taken += is_data ? extent.length : 0;
  }
  return {};
}

}  // namespace

Result<> Store::export_checkpoint(std::optional<Epoch> number, ExportSink& sink) {
  CKPT_TRY(latch_.check());
  CKPT_TRY(check_not_promoted());
  if (is_exporting_.exchange(true)) {
    return fail(ErrorKind::kBusy, "another export of this volume is under way: wait for its end");
  }
  struct Leave {
    std::atomic<bool>& is_exporting;
    ~Leave() { is_exporting.store(false); }
  } const leave{is_exporting_};
  CKPT_TRY(hand_over(number, sink));
  // A failed sync of the image may have taken content away while it was read.
  return latch_.check();
}

Result<> Store::hand_over(std::optional<Epoch> number, ExportSink& sink) {
  Snapshot snapshot(*image_, options_.size_bytes, sink, [this] { return must_hurry(); });
  const SnapshotHold hold(*applier_, snapshot);
  // Most of it before the session has to wait.
  CKPT_TRY(applier_->catch_up());
  CKPT_TRY(begin_snapshot(number, snapshot, [](const StoreRecord&) {}));
  Result<bool> more = true;
  while (more && *more) {
    more = snapshot.step();
  }
  return more ? Result<>() : Unexpected(more.error());
}

Result<> Store::relay(RelaySink& sink) {
  CKPT_TRY(latch_.check());
  CKPT_TRY(check_not_promoted());
  Snapshot snapshot(*image_, options_.size_bytes, sink);
  const SnapshotHold hold(*applier_, snapshot);
  CKPT_TRY(applier_->catch_up());
  CKPT_TRY(begin_snapshot(
      {}, snapshot, [&](const StoreRecord& record) { snapshot.choose(sink.choose(record)); }));
  bool more = true;
  while (more) {
    CKPT_ASSIGN(more, snapshot.step());
    CKPT_TRY(sink.rest());
  }
  if (CKPT_PLANTED(relay_passes_pending)) {
    const MutexLock lock(session_mutex_);
    CKPT_TRY(pending_->each([&sink](const Batch& batch) { return pass_to(sink, batch); }));
  }
  return latch_.check();  // as for an export
}

bool Store::must_hurry() const {
  const auto patience = options_.clock == nullptr ? std::chrono::seconds(0) : kExportPatience;
  return is_waited_for_.load() && now() - waited_since_.load() >= patience;
}

}  // namespace ckpt
