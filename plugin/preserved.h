// SPDX-License-Identifier: Apache-2.0
// Preserved blocks: copies of frozen, unshipped blocks, made just before these were overwritten.
#pragma once

#include <atomic>
#include <deque>
#include <memory>
#include <optional>
#include <vector>

#include "common/file.h"
#include "common/mutex.h"

namespace ckpt {

struct PreservedCopy {
  Epoch epoch;
  uint64_t offset = 0;  // on the disk, in bytes
  std::vector<std::byte> data;
};

struct PreserveLimits {
  uint64_t memory_bytes = uint64_t{64} << 20U;
  uint64_t total_bytes = uint64_t{1} << 30U;  // memory and spill file together
};

// A queue of them, in the order of the reads: in memory first, then in a spill file.
//
// Threads:    put() by writers, the others by the shipper.
// Failure:    when a copy finds no room, or the spill file fails, it is dropped and lost() tells of
//             which epoch: its checkpoint must be void. put() never waits for memory or a link.
// Durability: none; copies are good for the checkpoint in progress only.
class PreservedQueue {
 public:
  // The spill file is made in directory when it is first needed.
  PreservedQueue(Directory& directory, PreserveLimits limits)
      : directory_(directory), limits_(limits) {}

  void put(PreservedCopy copy);
  // A copy could not be made: the epoch's checkpoint must be void.
  void lose(Epoch epoch);
  Result<std::optional<PreservedCopy>> next();
  // Void: drops all copies and what was lost.
  void clear();
  [[nodiscard]] bool empty();
  // The newest epoch that a copy is missing of; 0: none.
  [[nodiscard]] Epoch lost();
  // How often put() was called: changes before a copied block's lock is released.
  [[nodiscard]] uint64_t arrivals() const { return arrivals_.load(); }
  [[nodiscard]] uint64_t blocks_total() const { return blocks_.load(); }

 private:
  struct Item {
    PreservedCopy copy;  // without data when spilled
    uint64_t length = 0;
    std::optional<uint64_t> spilled_at;
  };
  [[nodiscard]] bool spill(Item& item) CKPT_REQUIRES(mutex_);
  Result<> open_spill_file() CKPT_REQUIRES(mutex_);

  Directory& directory_;
  PreserveLimits limits_;
  std::atomic<uint64_t> arrivals_{0};
  std::atomic<uint64_t> blocks_{0};
  Mutex mutex_;
  std::deque<Item> items_ CKPT_GUARDED_BY(mutex_);
  uint64_t memory_bytes_ CKPT_GUARDED_BY(mutex_) = 0;
  uint64_t spilled_bytes_ CKPT_GUARDED_BY(mutex_) = 0;  // the spill file's end
  std::unique_ptr<File> spill_file_ CKPT_GUARDED_BY(mutex_);
  Epoch lost_ CKPT_GUARDED_BY(mutex_);
};

}  // namespace ckpt
