// SPDX-License-Identifier: Apache-2.0
// Epoch objects: the current one, and the closed one whose checkpoint is being made.
#pragma once

#include <array>
#include <atomic>

#include "common/mutex.h"
#include "common/result.h"
#include "plugin/change_map.h"
#include "plugin/written_maps.h"

namespace ckpt {

// One epoch's number, maps and writers.
struct EpochObject {
  EpochObject(const Geometry& geometry, ByteSpan written_memory)
      : written(geometry, written_memory),
        unshipped_memory(geometry.map_bytes()),
        unshipped(geometry, unshipped_memory.bytes()) {}

  std::atomic<uint64_t> number{0};
  ChangeMap written;  // in shared memory: outlives the process
  MapMemory unshipped_memory;
  ChangeMap unshipped;
  std::atomic<uint32_t> writers{0};  // that reference it
  std::atomic<uint32_t> preserving{
      0};  // that may have taken a bit and not yet handed over the copy
};

// Threads: enter(), leave(), begin_preserve() and end_preserve() by writers; the others by one
// thread
//          at a time, the one that makes checkpoints. number() by anyone.
// The object of a finished epoch is used again; so whoever takes a reference checks, after counting
// itself in, that the object still is what it was: the counter and the pointer are ordered by
// seq_cst on both sides, and one of the two always sees the other.
class Epochs {
 public:
  // Two maps' worth of memory, for the written maps.
  Epochs(const Geometry& geometry, ByteSpan first_map, ByteSpan second_map);

  // References the current epoch object.
  EpochObject& enter();
  void leave(EpochObject& epoch);
  // The closed epoch object, held so that it is not used again before end_preserve(); null: none.
  EpochObject* begin_preserve();
  void end_preserve(EpochObject& epoch);

  [[nodiscard]] EpochObject& current() const { return *current_.load(); }
  [[nodiscard]] EpochObject* closed() const { return closed_.load(); }
  [[nodiscard]] Epoch number() const { return Epoch{current().number.load()}; }
  void set_number(Epoch number) { current().number.store(number.value); }
  struct Both {
    const EpochObject* current;
    const EpochObject* closed;  // null: none
  };
  // The two as they were at one instant: a cut in between would hide one epoch's bits.
  [[nodiscard]] Both both() const;
  // Whether the closed object's writers have left.
  [[nodiscard]] bool is_frozen() const;
  // Waits until it is, or for so long.
  void wait_frozen(std::chrono::nanoseconds time);
  // Waits until nobody preserves blocks of the closed epoch, or for so long.
  void wait_preserved(std::chrono::nanoseconds time);

  // Makes all bits that an earlier process left in the written maps the current epoch's.
  Result<> adopt_bits(WrittenMaps& maps);

  // Closes the current epoch object, installs a new one with the next number. Nothing must be
  // closed.
  void cut();
  // Void: ORs the closed object's maps into the current one's. Its writers must have left.
  void merge_closed();
  // All of the closed epoch was sent: gives back the memory of its unshipped map.
  void shed_closed();
  // Its checkpoint exists and the primary was synced: drops the closed written map.
  void drop_closed();

 private:
  void retire_closed();
  void notify_idle();

  std::array<EpochObject, 2> objects_;
  std::atomic<EpochObject*> current_;
  std::atomic<EpochObject*> closed_{nullptr};
  // Who waits counts itself in and then looks at a count of writers; whoever brings that to 0 then
  // looks whether anybody waits: one sees the other.
  std::atomic<uint32_t> waiting_{0};
  Mutex mutex_;
  CondVar idle_;
};

}  // namespace ckpt
