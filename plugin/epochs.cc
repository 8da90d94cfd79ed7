// SPDX-License-Identifier: Apache-2.0
#include "plugin/epochs.h"

namespace ckpt {

Epochs::Epochs(const Geometry& geometry, ByteSpan first_map, ByteSpan second_map)
    : objects_{EpochObject(geometry, first_map), EpochObject(geometry, second_map)},
      current_(objects_.data()) {}

EpochObject& Epochs::enter() {
  while (true) {
    EpochObject* const epoch = current_.load();
    sim_point();
    ++epoch->writers;
    sim_point();
    if (current_.load() == epoch) {
      return *epoch;
    }
    CKPT_PROBE(cut_while_a_writer_entered);
    leave(*epoch);
  }
}

void Epochs::leave(EpochObject& epoch) {
  if (--epoch.writers == 0 && closed_.load() == &epoch) {
    notify_idle();
  }
}

EpochObject* Epochs::begin_preserve() {
  EpochObject* const epoch = closed_.load();
  if (epoch == nullptr) {
    return nullptr;
  }
  sim_point();
  ++epoch->preserving;
  sim_point();
  if (closed_.load() == epoch) {
    return epoch;
  }
  CKPT_PROBE(epoch_ended_while_a_writer_looked);
  end_preserve(*epoch);
  return nullptr;
}

void Epochs::end_preserve(EpochObject& epoch) {
  if (--epoch.preserving == 0) {
    notify_idle();
  }
}

void Epochs::notify_idle() {
  sim_point();
  if (waiting_.load() != 0) {
    const MutexLock lock(mutex_);
    idle_.notify_all();
  }
}

Epochs::Both Epochs::both() const {
  while (true) {
    const EpochObject* const before = current_.load();
    const uint64_t number = before->number.load();
    const EpochObject* const closed = closed_.load();
    if (current_.load() == before && before->number.load() == number) {
      return {before, closed};
    }
  }
}

bool Epochs::is_frozen() const {
  const EpochObject* const epoch = closed();
  return epoch != nullptr && epoch->writers.load() == 0;
}

void Epochs::wait_frozen(std::chrono::nanoseconds time) {
  const MutexLock lock(mutex_);
  ++waiting_;
  if (!is_frozen()) {
    idle_.wait_for(mutex_, time);
  }
  --waiting_;
}

void Epochs::wait_preserved(std::chrono::nanoseconds time) {
  const MutexLock lock(mutex_);
  ++waiting_;
  const EpochObject* const epoch = closed();
  if (epoch != nullptr && epoch->preserving.load() != 0) {
    idle_.wait_for(mutex_, time);
  }
  --waiting_;
}

Result<> Epochs::adopt_bits(WrittenMaps& maps) {
  for (size_t index = 0; index < objects_.size(); ++index) {
    CKPT_ASSIGN(const auto ranges, maps.used_ranges(index));
    for (const ByteRange& range : ranges) {
      objects_[index].written.count_bits(range);
    }
  }
  EpochObject& other = &current() == objects_.data() ? objects_[1] : objects_[0];
  current().written.add_all(other.written);
  other.written.clear();
  return {};
}

void Epochs::cut() {
  CKPT_CHECK(closed_.load() == nullptr);
  EpochObject* const old = current_.load();
  EpochObject* const fresh = old == objects_.data() ? &objects_[1] : objects_.data();
  fresh->number.store(old->number.load() + 1);
  // First closed, then current: whoever references the new object sees that the old one is closed.
  closed_.store(old);
  sim_point();
  current_.store(fresh);
}

void Epochs::merge_closed() {
  EpochObject* const epoch = closed_.load();
  // Its count may show a writer that is about to find that it came too late, and leave.
  CKPT_CHECK(epoch != nullptr);
  // Added before they are cleared: the union of both maps covers every change at every instant.
  current().written.add_all(epoch->written);
  current().unshipped.take_all(epoch->unshipped);
  retire_closed();
}

// A writer that overwrites its blocks may look at the map meanwhile, and finds no bit to take.
void Epochs::shed_closed() { closed()->unshipped.shed_memory(); }

void Epochs::drop_closed() {
  CKPT_CHECK(closed_.load() != nullptr);
  retire_closed();
}

void Epochs::retire_closed() {
  EpochObject* const epoch = closed_.exchange(nullptr);
  {
    const MutexLock lock(mutex_);
    ++waiting_;
    while (epoch->preserving.load() != 0) {
      idle_.wait(mutex_);
    }
    --waiting_;
  }
  epoch->written.clear();
  if (CKPT_PLANTED(single_map)) {
    current().written.clear();
  }
  epoch->written.shed_memory();
  epoch->unshipped.clear();
  epoch->unshipped.shed_memory();
}

}  // namespace ckpt
