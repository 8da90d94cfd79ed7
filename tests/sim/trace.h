// SPDX-License-Identifier: Apache-2.0
// What happened last, for people, and a hash of all that happened, to compare two runs of a seed.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "common/clock.h"

namespace ckpt::sim {

struct Event {
  uint64_t step = 0;
  SteadyTime time{};
  const char* fiber = "";   // names outlive the trace: they are fibers' names and interned paths
  const char* label = "";
  const char* object = "";
  uint64_t a = 0;
  uint64_t b = 0;
};

class Trace {
 public:
  explicit Trace(size_t capacity) : ring_(capacity) {}

  void record(const Event& event) {
    ring_[count_ % ring_.size()] = event;
    ++count_;
  }
  // Mixes in what a scheduler did: which fiber, at which kind of point.
  void mix(uint32_t fiber, uint32_t kind) {
    hash_ = (hash_ ^ (uint64_t{fiber} << 8U) ^ kind) * 0x9e3779b97f4a7c15;
    hash_ ^= hash_ >> 29U;
  }
  [[nodiscard]] uint64_t hash() const { return hash_; }
  // The last events, oldest first, one a line.
  [[nodiscard]] std::string last_events() const;

 private:
  std::vector<Event> ring_;
  uint64_t count_ = 0;
  uint64_t hash_ = 1;
};

}  // namespace ckpt::sim
