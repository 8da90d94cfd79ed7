// SPDX-License-Identifier: Apache-2.0
// Preserved blocks: copies of frozen, unshipped blocks, made just before these were overwritten.
#pragma once

#include <atomic>
#include <deque>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "common/file.h"
#include "common/mutex.h"

namespace ckpt {

// Where the content of one copy is.
struct PreservedCopy {
  Epoch epoch;
  ByteRange range;                     // on the disk, in bytes
  std::optional<uint64_t> spilled_at;  // where in the spill file; nothing: in memory
  std::unique_ptr<std::byte[]> data;
};

struct PreserveLimits {
  uint64_t memory_bytes = uint64_t{64} << 20U;
  uint64_t total_bytes = uint64_t{1} << 30U;  // memory and spill file together
};

// A queue of them: in memory first, then in a spill file.
//
// Threads:    keep() by writers, each for blocks that it has locked; the others by the shipper.
// Failure:    when a copy cannot be read, finds no room, or the spill file fails, it is dropped and
//             lost() tells of which epoch: its checkpoint must be void. keep() never waits for a
//             link, and for memory only where the operating system does.
// Durability: none; copies are good for the checkpoint in progress only.
class PreservedQueue {
 public:
  // The spill file is made in directory when it is first needed.
  PreservedQueue(Directory& directory, PreserveLimits limits)
      : directory_(directory), limits_(limits) {}

  // Copies a range of the image.
  void keep(Epoch epoch, ByteRange range, File& image);
  // A copy could not be made: the epoch's checkpoint must be void.
  void lose(Epoch epoch);
  // Takes the oldest copy from the queue; nothing: it is empty.
  std::optional<PreservedCopy> next();
  // The content of a copy that was taken and not released.
  Result<> read(const PreservedCopy& copy, ByteSpan buffer);
  // Gives back the places of copies that were taken: every one, once, sent or not.
  void release(std::span<const PreservedCopy> copies);
  // Void: drops all copies that were not taken, and what was lost.
  void clear();
  [[nodiscard]] bool empty();
  // The bytes of all copies that were not taken.
  [[nodiscard]] uint64_t waiting_bytes();
  // The newest epoch that a copy is missing of; 0: none.
  [[nodiscard]] Epoch lost();
  [[nodiscard]] uint64_t blocks_total() const { return blocks_.load(); }

 private:
  // Finds room for a copy; false: there is none.
  [[nodiscard]] bool make_room(PreservedCopy& copy);
  [[nodiscard]] bool fill(PreservedCopy& copy, File& image);
  void release_one(const PreservedCopy& copy) CKPT_REQUIRES(mutex_);
  Result<> open_spill_file() CKPT_REQUIRES(mutex_);

  Directory& directory_;
  PreserveLimits limits_;
  std::atomic<uint64_t> blocks_{0};
  Mutex mutex_;
  std::deque<PreservedCopy> copies_ CKPT_GUARDED_BY(mutex_);
  uint64_t waiting_bytes_ CKPT_GUARDED_BY(mutex_) = 0;  // in copies_
  uint64_t memory_bytes_ CKPT_GUARDED_BY(mutex_) = 0;
  uint64_t spilled_copies_ CKPT_GUARDED_BY(mutex_) = 0;  // with a place in the spill file
  uint64_t spilled_bytes_ CKPT_GUARDED_BY(mutex_) = 0;   // the spill file's end
  std::unique_ptr<File> spill_file_;  // set once, under the mutex, before any copy is spilled
  Epoch lost_ CKPT_GUARDED_BY(mutex_);
};

}  // namespace ckpt
