// SPDX-License-Identifier: Apache-2.0
// A relay: a store passes its checkpoints on to a further store.
#pragma once

#include <functional>
#include <map>
#include <optional>

#include "backupd/relay_parcel.h"
#include "backupd/relay_queue.h"
#include "backupd/store/store.h"

namespace ckpt {

// What is passed on is read from the back-up image while that is the checkpoint; what is about to
// change before its turn is read first (Snapshot), and waits in memory. So the store's applier
// waits for no link, and no journal is kept for the sake of a relay. Which blocks the further store
// lacks is known from those that were applied since it had its last checkpoint; where that is not
// known, digests tell.
//
// Threads:  step() by one; passed() by any.
// Lifetime: both stores outlive it.
// Failure:  an error ends the session with the further store; the next step begins another.
// kFenced:
//           the further store has what is not on this one's line: nothing is passed on.
class Relay final : private RelaySink {
 public:
  // queue_bytes: of what may wait in memory. keep_alive: called every so often while a step takes
  // its time.
  Relay(
      Store& store, StoreLink& further, uint64_t queue_bytes = kRelayQueueBytesMax,
      std::function<void()> keep_alive = [] {});
  ~Relay() override;
  Relay(const Relay&) = delete;
  Relay& operator=(const Relay&) = delete;

  // Brings the further store to the last checkpoint. True: it has one more now, or is on its way.
  Result<bool> step() CKPT_EXCLUDES(mutex_);
  // What the further store has, as far as it is known.
  [[nodiscard]] std::optional<CheckpointId> passed() const CKPT_EXCLUDES(mutex_);

 private:
  BlockSet choose(const StoreRecord& record) override CKPT_EXCLUDES(mutex_);
  Result<> rest() override CKPT_EXCLUDES(mutex_);
  Result<> begin(const CheckpointInfo& checkpoint, uint64_t size_bytes) override;
  Result<> write(uint64_t offset, ConstByteSpan data) override CKPT_EXCLUDES(mutex_);
  Result<> zero(ByteRange range) override CKPT_EXCLUDES(mutex_);

  Result<bool> bring(const StoreRecord& record) CKPT_EXCLUDES(mutex_);
  Result<bool> lacks(const StoreRecord& record) CKPT_EXCLUDES(mutex_);
  [[nodiscard]] bool is_of_session(const StoreRecord& record) const;
  Result<> begin_session(const StoreRecord& record) CKPT_EXCLUDES(mutex_);
  void find_what_it_lacks(const StoreGreeting& greeting) CKPT_EXCLUDES(mutex_);
  Result<> follow_forks(const StoreRecord& record) CKPT_EXCLUDES(mutex_);
  Result<> pass() CKPT_EXCLUDES(mutex_);
  Result<> pass_attachments();
  Result<> send(const std::vector<Extent>& extents, ConstByteSpan data);
  Result<> drain() CKPT_EXCLUDES(mutex_);
  Result<> take(ByteRange range, ConstByteSpan data) CKPT_EXCLUDES(mutex_);
  Result<> confirm() CKPT_EXCLUDES(mutex_);

  Store& store_;
  StoreLink& further_;
  const uint64_t size_bytes_;
  const uint64_t queue_bytes_;
  const std::function<void()> keep_alive_;
  Changes changes_;
  RelayQueue queue_;

  // The step's.
  bool is_in_session_ = false;
  StoreRecord target_;                 // what is being passed on
  std::optional<RelayParcel> parcel_;  // while something is
  uint64_t sequence_ = 0;              // of the last batch
  Uuid timeline_;                      // of the session
  uint64_t incarnation_ = 0;           // the same
  Epoch tried_;                      // its attachments were passed on, or the next checkpoint came
  Epoch attached_;                   // they are there
  std::map<Epoch, Digest> covered_;  // chains of what was sent and is not confirmed
  bool is_known_ = false;            // what base_ is
  std::optional<BaseCheckpoint> base_;        // the further store's last; nothing: none
  bool is_begun_ = false;                     // and something of a first one
  std::optional<BaseCheckpoint> confirming_;  // it may have this one instead

  // Relative to base_. No other block differs. What was handed over is in neither of the first two.
  mutable Mutex mutex_;
  BlockSet to_send_ CKPT_GUARDED_BY(mutex_);
  BlockSet to_compare_ CKPT_GUARDED_BY(mutex_);  // may differ; nothing of them is pending there
  BlockSet handed_ CKPT_GUARDED_BY(mutex_);      // since base_
  std::optional<CheckpointId> passed_ CKPT_GUARDED_BY(mutex_);
};

}  // namespace ckpt
