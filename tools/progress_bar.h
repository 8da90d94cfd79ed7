// SPDX-License-Identifier: Apache-2.0
// How far a long operation is, on a terminal: share, bytes, rate and time left.
#pragma once

#include "common/clock.h"
#include "tools/console.h"

namespace ckpt {

// The line for one instant, of at most so many columns.
struct ProgressPoint {
  std::string act;  // "rolling back"
  uint64_t done_bytes = 0;
  uint64_t total_bytes = 0;
  std::chrono::nanoseconds elapsed{};
};
std::string format_progress(const ProgressPoint& point, size_t columns);

// Draws while it lives, and only if standard error is a terminal; leaves no line behind. The
// console and the clock outlive it.
class ProgressBar {
 public:
  ProgressBar(Console& console, std::string act, const Clock& clock);
  ProgressBar(const ProgressBar&) = delete;
  ProgressBar& operator=(const ProgressBar&) = delete;
  ~ProgressBar();
  // What the volume is given to tell how far it is. Always goes on.
  Progress progress();

 private:
  void update(uint64_t done_bytes, uint64_t total_bytes);

  Console& console_;
  const std::string act_;
  const Clock& clock_;
  const SteadyTime started_;
  SteadyTime next_{};
  bool drawn_ = false;
};

}  // namespace ckpt
