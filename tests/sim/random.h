// SPDX-License-Identifier: Apache-2.0
// The simulator's only source of chance: every choice of a seed comes from streams made here.
#pragma once

#include <string_view>

#include "common/clock.h"

namespace ckpt::sim {

// SplitMix64: small, fast, and good enough to choose with.
class SeededRandom final : public Random {
 public:
  explicit SeededRandom(uint64_t seed) : state_(seed) {}

  uint64_t next() override {
    state_ += 0x9e3779b97f4a7c15;
    uint64_t x = state_;
    x = (x ^ (x >> 30U)) * 0xbf58476d1ce4e5b9;
    x = (x ^ (x >> 27U)) * 0x94d049bb133111eb;
    return x ^ (x >> 31U);
  }
  // A number in [0, limit); limit is in (0, 2^32].
  uint64_t below(uint64_t limit) { return ((next() >> 32U) * limit) >> 32U; }
  // A number in [low, high].
  uint64_t between(uint64_t low, uint64_t high) { return low + below(high - low + 1); }
  // True once in n times; never for 0.
  bool one_in(uint64_t n) { return n != 0 && below(n) == 0; }

  // Another stream, so that more draws in one part leave the other parts of a seed as they were.
  [[nodiscard]] SeededRandom stream(std::string_view name) const {
    uint64_t hash = state_ ^ 0xcbf29ce484222325;
    for (const char letter : name) {
      hash = (hash ^ static_cast<unsigned char>(letter)) * 0x100000001b3;
    }
    SeededRandom mixed(hash);
    return SeededRandom(mixed.next());
  }

 private:
  uint64_t state_;
};

}  // namespace ckpt::sim
