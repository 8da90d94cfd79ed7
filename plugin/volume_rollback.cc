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
  const bool goes_on = is_halfway_.load();
  if (rolling_back_.load() && !goes_on) {
    return fail(ErrorKind::kBusy, "a rollback is under way");
  }
  CKPT_ASSIGN(const CheckpointInfo target, kept_checkpoint(request.checkpoint));
  if (request.dry_run) {
    return preview(target);
  }
  // Whoever takes it away is the one that goes on.
  if (goes_on ? !is_halfway_.exchange(false) : rolling_back_.exchange(true)) {
    return fail(ErrorKind::kBusy, "a rollback is under way");
  }
  ++work_wanted_;
  const MutexLock work(work_mutex_);
  --work_wanted_;
  if (auto closed = gate_.close(request.clients, kPatience); !goes_on && !closed) {
    rolling_back_.store(false);
    return Unexpected(closed.error());
  }
  auto outcome =
      goes_on ? go_on_roll_back(target, progress) : do_roll_back(target, request, progress);
  if (started_.record->get().rollback) {
    // Half-way: what the disk holds is neither the one nor the other.
    gate_.shut();
    session_.lose(outcome.error());  // the status says why
    is_halfway_.store(true);
  } else {
    rolling_back_.store(false);
    gate_.open(started_.record->get().fenced);
  }
  return outcome;
}

// Nothing is in flight. Settles the checkpoint in progress and has a session with the store.
Result<> Volume::quiesce() {
  maker_.cancel("a rollback was asked for");
  maker_.fold();
  look_at_link();
  if (!session_.is_open()) {
    CKPT_TRY(open_session());
  }
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
  if (auto synced = disk().sync_image(); !synced) {
    return fail(ErrorKind::kIo, "the image cannot be synced: restart the server, then roll back: " +
                                    synced.error().message());
  }
  CKPT_TRY(rollback_.begin(target.id, fence));
  return restore(target, progress, began);
}

// One that stopped half-way, in this server.
Result<RollbackOutcome> Volume::go_on_roll_back(const CheckpointInfo& target,
                                                const Progress& progress) {
  const auto begun = started_.record->get().rollback;
  if (target.id.number != begun->checkpoint.number) {
    return fail(ErrorKind::kHalfway, "a rollback to checkpoint " +
                                         std::to_string(begun->checkpoint.number.value) +
                                         " has stopped half-way: only that one can go on");
  }
  return restore(target, progress, surroundings_.clock.steady());
}

Result<RollbackOutcome> Volume::restore(const CheckpointInfo& target, const Progress& progress,
                                        SteadyTime began) {
  Result<uint64_t> restored = fail(ErrorKind::kUnreachable, session_.problem());
  if (session_.is_open() || open_session()) {
    restored = rollback_.run(progress);
  }
  while (!restored && may_wait_for_store(restored.error())) {
    CKPT_PROBE(store_was_lost_during_a_rollback);
    auto opened = open_session();
    restored = opened ? rollback_.run(progress) : Unexpected(opened.error());
  }
  if (!restored) {
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
