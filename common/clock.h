// SPDX-License-Identifier: Apache-2.0
// Time and randomness, behind interfaces, so that the simulator can have its own.
#pragma once

#include <chrono>
#include <string>

#include "common/block.h"

namespace ckpt {

using SteadyTime = std::chrono::nanoseconds;  // since some fixed instant
using WallTime = std::chrono::nanoseconds;    // since the Unix epoch

// Threads: all methods may be called from any thread.
class Clock {
 public:
  virtual ~Clock() = default;
  // Never goes back.
  [[nodiscard]] virtual SteadyTime steady() const = 0;
  // As file stamps have it.
  [[nodiscard]] virtual WallTime wall() const = 0;
};

class Random {
 public:
  virtual ~Random() = default;
  virtual uint64_t next() = 0;
  // Version 4.
  Uuid uuid();
};

// The kernel's clocks and generator; live as long as the program.
Clock& system_clock();
Random& system_random();

// "2026-01-31T12:00:00.123Z", RFC 3339.
std::string format_time(WallTime time);

}  // namespace ckpt
