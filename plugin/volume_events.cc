// SPDX-License-Identifier: Apache-2.0
// What a volume notes of what happens to it, and what was due and did not happen.
#include "plugin/volume.h"

namespace ckpt {
namespace {

constexpr std::chrono::milliseconds kStoreLook{200};

}  // namespace

void Volume::checkpoints_due(uint64_t count) {
  Event event;
  event.kind = EventKind::kMissed;
  if (maker_.is_making()) {
    event.text = "the checkpoint before was still being made";
  } else if (maker_.is_asked()) {
    const std::string problem = session_.problem();
    event.text = "a checkpoint that was asked for before had not begun" +
                 (problem.empty() ? "" : ": " + problem);
  } else {
    maker_.ask({});
    --count;
    event.text = "the server was busy, with the checkpoint before or with a rollback";
  }
  event.count = count;
  if (count > 0) {
    disk().events.add(std::move(event));
  }
}

// What the store says of itself, and what the session knows better.
StoreStatus Volume::store_status() {
  StoreStatus status = store_.status();
  if (!session_.is_open() && status.state == "connected") {
    status.state = session_.is_diverged() ? "detached" : "failed";
  } else if (session_.is_open() && (!session_.confirmed() || narrower_.is_active())) {
    status.state = "syncing";
  }
  if (status.error.empty()) {
    status.error = session_.problem();
  }
  if (auto theirs = session_.theirs(); theirs && session_.is_diverged()) {
    status.confirmed = std::move(theirs);
  }
  return status;
}

void Volume::note_store(SteadyTime now) {
  if (now < next_store_look_ || !options_.has_backup || options_.start.offline) {
    return;
  }
  next_store_look_ = now + kStoreLook;
  if (!session_.is_open() && session_.problem().empty()) {
    return;  // it is just being opened
  }
  StoreStatus status = store_status();
  if (status.state == store_state_) {
    return;
  }
  store_state_ = status.state;
  Event event;
  event.kind = EventKind::kStore;
  event.state = std::move(status.state);
  event.text = std::move(status.error);
  disk().events.add(std::move(event));
}

void Volume::note_rollback(const RollbackOutcome& outcome) {
  Event event;
  event.kind = EventKind::kRollback;
  event.checkpoint = outcome.checkpoint.id.number.value;
  event.restored_bytes = outcome.restored_bytes;
  event.elapsed = outcome.elapsed;
  event.fenced = outcome.fenced;
  disk().events.add(std::move(event));
}

}  // namespace ckpt
