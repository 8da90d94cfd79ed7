// SPDX-License-Identifier: Apache-2.0
#include "plugin/session.h"

#include <algorithm>

namespace ckpt {
namespace {

bool is_own_timeline(const VolumeRecord& record, const Uuid& timeline) {
  return record.timeline == timeline ||
         std::ranges::find(record.forks, timeline, &CheckpointId::timeline) != record.forks.end();
}

// Its image was a primary's, which answered for what is not on this line.
Unexpected has_more(const VolumeRecord& record, const BaseCheckpoint& base) {
  const std::string number = std::to_string(base.id.number.value);
  return fail(ErrorKind::kFenced,
              "the image that is to become the back-up has checkpoint " + number + " of timeline " +
                  base.id.timeline.to_string() +
                  ", which this one does not have (it goes on from " +
                  (record.last ? std::to_string(record.last->id.number.value) : "none") +
                  "): with `ckpt-tool rejoin --discard` on its machine that one is given up");
}

Unexpected diverged(const VolumeRecord& record, const StoreGreeting& greeting) {
  if (!greeting.bases.empty()) {
    return has_more(record, greeting.bases.front());
  }
  const std::string theirs = greeting.last
                                 ? "checkpoint " + std::to_string(greeting.last->id.number.value) +
                                       " of timeline " + greeting.last->id.timeline.to_string()
                                 : "no checkpoint";
  const std::string ours = record.last ? std::to_string(record.last->id.number.value) +
                                             " of timeline " + record.last->id.timeline.to_string()
                                       : "none";
  return fail(
      ErrorKind::kFenced,
      "the store and the image have diverged: the store has " + theirs +
          ", which is not on this image's line (its last checkpoint: " + ours +
          "); an image or store was copied or restored. Restore the other side too, or move "
          "the state directory away to begin anew with this image");
}

}  // namespace

// A back-up that was promoted says so, and takes no session from then on: this image is history.
// Unless it is what was promoted, and was given the back-up that it was itself.
Result<StoreGreeting> Session::greet() {
  auto greeting = store_.begin_session();
  if (greeting || greeting.error().kind != ErrorKind::kFenced) {
    return greeting;
  }
  CKPT_ASSIGN(const auto kept, store_.checkpoints());
  if (!kept.empty() && is_own_timeline(record_.get(), kept.back().id.timeline)) {
    return fail(ErrorKind::kFenced,
                "this image is itself the back-up that is kept there, and was promoted: it needs "
                "another one (backup=)");
  }
  set_theirs(kept.empty() ? std::nullopt : std::optional(kept.back()));
  (void)supersede();
  return greeting;
}

Result<> Session::supersede() {
  superseded_.store(true);
  return record_.change([](VolumeRecord& record) { record.superseded = true; });
}

Result<HandshakeRow> Session::open() {
  open_.store(false);
  CKPT_ASSIGN(const StoreGreeting greeting, greet());
  const HandshakeRow row = decide_handshake(record_.get(), greeting);
  if (row == HandshakeRow::kDiverged) {
    set_theirs(greeting.last);
    diverged_.store(true);
    return diverged(record_.get(), greeting);
  }
  // Only what has this one's last checkpoint can be what was told to become the primary.
  if (record_.get().giving_up && row != HandshakeRow::kGoOn && row != HandshakeRow::kRollBack) {
    return fail(ErrorKind::kInvalid, "what is there is not the back-up that was told so");
  }
  CKPT_TRY(change_maps(row, greeting));
  CKPT_TRY(record_handshake(row, greeting));
  CKPT_TRY(store_.accept(incarnation_));
  const VolumeRecord record = record_.get();
  if (!greeting.last && !record.forks.empty()) {
    CKPT_TRY(store_.tell_forks(record.forks));
  }
  shipper_.start_session({record.volume, record.timeline, incarnation_});
  disk_.preserved.clear();
  EpochObject& current = disk_.epochs.current();
  // OR, not assign: a writer may set a bit at this very moment.
  if (!CKPT_PLANTED(no_union_at_session)) {
    current.unshipped.add_all(current.written);
  }
  if (const EpochObject* const closed = disk_.epochs.closed(); closed != nullptr) {
    CKPT_PROBE(session_began_with_an_epoch_closed);
    current.unshipped.add_all(closed->written);
  }
  const MutexLock lock(mutex_);
  confirmed_ = greeting.last;
  problem_.clear();
  theirs_.reset();
  diverged_.store(false);
  open_.store(true);
  return row;
}

Result<> Session::record_handshake(HandshakeRow row, const StoreGreeting& greeting) {
  return record_.change([&](VolumeRecord& record) {
    if (row == HandshakeRow::kAdopt) {
      record.last = greeting.last;
    }
    // Settling an intent, either way, closes it.
    record.intent.reset();
    record.giving_up = false;  // it greets, so it is none
    record.accepted = greeting.incarnation;
    record.offered = incarnation_;
  });
}

Result<> Session::change_maps(HandshakeRow row, const StoreGreeting& greeting) {
  comparable_ = greeting.last || greeting.is_begun;
  if (row == HandshakeRow::kAdopt) {
    CKPT_PROBE(checkpoint_was_adopted);
  }
  if (row == HandshakeRow::kFirstCopy && greeting.is_begun) {
    CKPT_PROBE(first_copy_goes_on);
    inexact_ = true;
    return change_everything();
  }
  if (row == HandshakeRow::kFirstCopy) {
    return change_allocated();
  }
  if (row == HandshakeRow::kRejoin) {
    CKPT_PROBE(image_rejoined);
    if (CKPT_PLANTED(rejoin_skips_own_changes)) {
      disk_.epochs.current().written.clear();
    }
    // Where its machine lost its power, whole regions are named.
    inexact_ = true;
    return change_stale();
  }
  if (row == HandshakeRow::kResync && !CKPT_PLANTED(older_store_taken_for_whole)) {
    CKPT_PROBE(store_was_behind);
    inexact_ = true;
    return change_everything();
  }
  return {};
}

// A fresh store's image is all hole: holes of the primary need nothing.
Result<> Session::change_allocated() {
  uint64_t offset = 0;
  while (true) {
    CKPT_ASSIGN(const auto data, disk_.image.next_data(offset));
    if (!data) {
      return {};
    }
    CKPT_TRY(change(blocks_of(*data)));
    offset = data->end();
  }
}

Result<> Session::change_everything() { return change({0, disk_.geometry.blocks()}); }

Result<> Session::change_stale() {
  CKPT_ASSIGN(auto runs, store_.stale(0));
  while (!runs.empty()) {
    for (const BlockRange& run : runs) {
      CKPT_TRY(change(run));
    }
    CKPT_ASSIGN(runs, store_.stale(runs.back().end));
  }
  return {};
}

// A written bit without its mark is no danger here: until a checkpoint exists, every session with
// this store begins the same way.
Result<> Session::change(BlockRange blocks) {
  CKPT_TRY(disk_.maps.allocate(disk_.geometry.regions_of(blocks)));
  disk_.epochs.current().written.set(blocks);
  return {};
}

void Session::lose(const Error& error) {
  open_.store(false);
  const MutexLock lock(mutex_);
  problem_ = error.message();
}

std::optional<CheckpointInfo> Session::confirmed() {
  const MutexLock lock(mutex_);
  return confirmed_;
}

void Session::set_confirmed(const CheckpointInfo& checkpoint) {
  const MutexLock lock(mutex_);
  confirmed_ = checkpoint;
}

void Session::set_theirs(const std::optional<CheckpointInfo>& last) {
  const MutexLock lock(mutex_);
  theirs_ = last;
}

std::optional<CheckpointInfo> Session::theirs() {
  const MutexLock lock(mutex_);
  return theirs_;
}

std::string Session::problem() {
  const MutexLock lock(mutex_);
  return problem_;
}

}  // namespace ckpt
