// SPDX-License-Identifier: Apache-2.0
// A volume's way back to its last checkpoint, under clients and over a link.
#include <algorithm>

#include "plugin/volume.h"

namespace ckpt {
namespace {

constexpr std::chrono::seconds kPatience{2};    // with clients that are closing
constexpr std::chrono::seconds kStorePause{1};  // before a store that was lost is tried again
constexpr std::chrono::milliseconds kPauseLook{20};

}  // namespace

RollbackOutcome Volume::preview(const CheckpointInfo& target) const {
  RollbackOutcome outcome;
  outcome.checkpoint = target;
  outcome.restored_bytes =
      std::min(disk().changed_blocks() * kBlockBytes, disk().geometry.size_bytes);
  return outcome;
}

Result<RollbackOutcome> Volume::roll_back(const RollbackRequest& request,
                                          const Progress& progress) {
  CKPT_TRY(check_not_superseded());
  if (is_halfway_.load()) {
    return go_on_roll_back(request, progress);
  }
  if (rolling_back_.load()) {
    return fail(ErrorKind::kBusy, "a rollback is under way");
  }
  CKPT_ASSIGN(const CheckpointInfo target, kept_checkpoint(request.checkpoint));
  if (request.dry_run) {
    return preview(target);
  }
  if (rolling_back_.exchange(true)) {
    return fail(ErrorKind::kBusy, "a rollback is under way");
  }
  ++work_wanted_;
  const MutexLock work(work_mutex_);
  --work_wanted_;
  if (auto closed = gate_.close(request.clients, kPatience); !closed) {
    rolling_back_.store(false);
    return Unexpected(closed.error());
  }
  auto outcome = do_roll_back(target, request, progress);
  end_roll_back();
  return outcome;
}

// One that has stopped half-way, in this server. Whatever keeps it from going on, the disk is half
// of each: that is said, and not what would mean that nothing was done.
Result<RollbackOutcome> Volume::go_on_roll_back(const RollbackRequest& request,
                                                const Progress& progress) {
  if (!is_halfway_.exchange(false)) {
    return fail(ErrorKind::kBusy, "a rollback is under way");
  }
  ++work_wanted_;
  const MutexLock work(work_mutex_);
  --work_wanted_;
  auto outcome = do_go_on_roll_back(request, progress);
  end_roll_back();
  return outcome || outcome.error().kind == ErrorKind::kHalfway
             ? std::move(outcome)
             : fail(ErrorKind::kHalfway, "the rollback that stopped half-way does not go on: " +
                                             outcome.error().message());
}

Result<RollbackOutcome> Volume::do_go_on_roll_back(const RollbackRequest& request,
                                                   const Progress& progress) {
  CKPT_ASSIGN(const CheckpointInfo target, kept_checkpoint(request.checkpoint));
  const RollbackTarget begun = *started_.record->get().rollback;
  if (target.id.number != begun.checkpoint.number) {
    return fail(ErrorKind::kBusy,
                "it leads to checkpoint " + std::to_string(begun.checkpoint.number.value));
  }
  if (request.dry_run) {
    return preview(target);
  }
  // Who vouched for the clients before does not vouch for them now.
  CKPT_TRY(gate_.close(request.clients, kPatience));
  if (request.clients == ClientPolicy::kFence && !begun.fence) {
    CKPT_TRY(started_.record->change([](VolumeRecord& record) { record.rollback->fence = true; }));
  }
  CKPT_TRY(sync_before_roll_back());
  return restore(target, progress, surroundings_.clock.steady());
}

void Volume::end_roll_back() {
  if (started_.record->get().rollback) {
    // Half-way: what the disk holds is neither the one nor the other.
    gate_.shut("a rollback stopped half-way: `ckpt-tool rollback` goes on with it");
    is_halfway_.store(true);
  } else {
    rolling_back_.store(false);
    gate_.open(started_.record->get().fenced);
  }
}

// Nothing is in flight. A new session settles the checkpoint in progress, and what is still to be
// said of the batches before: that one of them failed is nothing to a rollback.
Result<> Volume::quiesce() {
  maker_.cancel("a rollback was asked for");
  maker_.fold();
  CKPT_TRY(open_session());
  maker_.fold();
  return {};
}

Result<RollbackOutcome> Volume::do_roll_back(const CheckpointInfo& target,
                                             const RollbackRequest& request,
                                             const Progress& progress) {
  CKPT_TRY(quiesce());
  const VolumeRecord record = started_.record->get();
  CKPT_ASSIGN(const CheckpointInfo now, kept_checkpoint(request.checkpoint));
  if (!record.last || record.last->id != now.id) {
    return fail(ErrorKind::kNotFound,
                "the store was behind this image and has not caught up: take a checkpoint first");
  }
  if (now.id != target.id) {
    return fail(ErrorKind::kBusy, "a checkpoint came to exist meanwhile: ask again");
  }
  const bool died = options_.start.offline && started_.decision.had_clients;
  const bool fence = request.clients == ClientPolicy::kFence || died;
  return run_roll_back(target, fence, progress);
}

Result<RollbackOutcome> Volume::run_roll_back(const CheckpointInfo& target, bool fence,
                                              const Progress& progress) {
  const SteadyTime began = surroundings_.clock.steady();
  narrower_.stop();
  CKPT_TRY(sync_before_roll_back());
  CKPT_TRY(rollback_.begin(target.id, fence));
  return restore(target, progress, began);
}

// A failed sync is final: what is restored could not be synced.
Result<> Volume::sync_before_roll_back() {
  auto synced = disk().sync_image();
  return synced ? synced
                : Result<>(fail(ErrorKind::kIo,
                                "the image cannot be synced: restart the server, then roll back: " +
                                    synced.error().message()));
}

Result<RollbackOutcome> Volume::restore(const CheckpointInfo& target, const Progress& progress,
                                        SteadyTime began) {
  const auto restore_once = [&]() CKPT_REQUIRES(work_mutex_) -> Result<uint64_t> {
    if (!session_.is_open()) {
      CKPT_TRY(open_session());
    }
    return rollback_.run(progress);
  };
  auto restored = restore_once();
  while (!restored && may_wait_for_store(restored.error())) {
    CKPT_PROBE(store_was_lost_during_a_rollback);
    restored = restore_once();
  }
  if (!restored) {
    session_.lose(restored.error());  // the status says why
    return fail(
        ErrorKind::kHalfway,
        "the rollback stopped half-way, and goes on with `ckpt-tool rollback` or at the next "
        "start of the server: " +
            restored.error().message());
  }
  RollbackOutcome outcome;
  outcome.checkpoint = target;
  outcome.checkpoint.id = started_.record->get().last->id;
  outcome.restored_bytes = *restored;
  outcome.elapsed = surroundings_.clock.steady() - began;
  outcome.fenced = started_.record->get().fenced;
  note_rollback(outcome);
  // A new timeline: batches must name it. The disk is rolled back whether this succeeds or not, and
  // the pump tries again.
  (void)open_session();
  return outcome;
}

// A store that was lost half-way: waits a moment, while the status says what for. In the tool it is
// said at once.
bool Volume::may_wait_for_store(const Error& error) {
  // One that does not believe us today may do so tomorrow.
  const bool may_come_back =
      error.kind == ErrorKind::kUnreachable || error.kind == ErrorKind::kDenied;
  if (!may_come_back || options_.start.offline) {
    return false;
  }
  session_.lose(error);
  const SteadyTime until = surroundings_.clock.steady() + kStorePause;
  Waker pause;
  while (!stopping_.load() && surroundings_.clock.steady() < until) {
    pause.wait(kPauseLook);
  }
  return !stopping_.load();
}

// One that was under way when the last server ended.
Result<> Volume::finish_roll_back(const RollbackTarget& target) {
  const SteadyTime began = surroundings_.clock.steady();
  RollbackOutcome outcome;
  const Progress& told = options_.on_rollback;
  CKPT_ASSIGN(outcome.restored_bytes, rollback_.run([&told](uint64_t done, uint64_t total) {
    return !told || told(done, total);
  }));
  outcome.checkpoint.id = target.checkpoint;
  outcome.elapsed = surroundings_.clock.steady() - began;
  outcome.fenced = started_.record->get().fenced;
  note_rollback(outcome);
  return {};
}

}  // namespace ckpt
