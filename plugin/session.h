// SPDX-License-Identifier: Apache-2.0
// The session with the store: opened, lost, and what each handshake means for the maps.
#pragma once

#include "plugin/handshake.h"
#include "plugin/shipper.h"

namespace ckpt {

// One thread at a time, but is_open(), problem() and is_diverged(): any.
class Session {
 public:
  Session(Disk& disk, StoreLink& store, VolumeRecordFile& record, Shipper& shipper,
          uint64_t incarnation)
      : disk_(disk), store_(store), record_(record), shipper_(shipper), incarnation_(incarnation) {}

  // Fences the session before, reads the store's greeting, records what follows from it, and makes
  // all that is changed unshipped. The closed epoch's writers must have left; the caller settles
  // its checkpoint by what is returned. kFenced: diverged, nothing was changed; or the store was
  // promoted, which is on record then, and the caller says diverge() when nobody is served any
  // more.
  Result<HandshakeRow> open();
  // The store failed or refused: nothing more is sent before open() succeeds.
  void lose(const Error& error);

  void diverge() { diverged_.store(true); }
  // The back-up is the primary: records that. Where that fails, it is known as long as this server
  // runs.
  Result<> supersede();
  // The store was promoted.
  [[nodiscard]] bool is_superseded() const { return superseded_.load(); }

  [[nodiscard]] bool is_open() const { return open_.load(); }
  [[nodiscard]] bool is_diverged() const { return diverged_.load(); }
  [[nodiscard]] std::string problem();
  // What the store has: as it said at open(), or as confirmed since. Older than the record's, or
  // nothing, after a resync that no checkpoint has ended yet.
  [[nodiscard]] std::optional<CheckpointInfo> confirmed();
  void set_confirmed(const CheckpointInfo& checkpoint);
  // What the store had last, when it turned out to be on another line.
  [[nodiscard]] std::optional<CheckpointInfo> theirs();
  // Set by open(): more blocks count as changed than need be; comparing with the store may pay.
  [[nodiscard]] bool is_inexact() const { return inexact_; }
  // Set by open(): there is something to compare with.
  [[nodiscard]] bool is_comparable() const { return comparable_; }
  void set_inexact(bool inexact) { inexact_ = inexact; }

 private:
  Result<StoreGreeting> greet();
  void set_theirs(const std::optional<CheckpointInfo>& last);
  Result<> record_handshake(HandshakeRow row, const StoreGreeting& greeting);
  Result<> change_maps(HandshakeRow row, const StoreGreeting& greeting);
  Result<> change_allocated();
  Result<> change_everything();
  Result<> change_stale();
  Result<> change(BlockRange blocks);

  Disk& disk_;
  StoreLink& store_;
  VolumeRecordFile& record_;
  Shipper& shipper_;
  const uint64_t incarnation_;
  std::atomic<bool> open_{false};
  std::atomic<bool> diverged_{false};
  std::atomic<bool> superseded_{false};
  bool inexact_ = false;
  bool comparable_ = false;
  Mutex mutex_;
  std::string problem_ CKPT_GUARDED_BY(mutex_);
  std::optional<CheckpointInfo> confirmed_ CKPT_GUARDED_BY(mutex_);
  std::optional<CheckpointInfo> theirs_ CKPT_GUARDED_BY(mutex_);
};

}  // namespace ckpt
