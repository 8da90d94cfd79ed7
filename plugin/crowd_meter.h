// SPDX-License-Identifier: Apache-2.0
// Whether a thread has to wait for a processor, and how it makes way.
#pragma once

#include <chrono>
#include <cstdint>

#include "common/fd.h"

namespace ckpt {

// Reads what the scheduler counts for the calling thread: its time on a processor, and the time
// that it waited for one though it could run (proc(5), /proc/PID/schedstat).
//
// Threads: used by the thread that made it.
class CrowdMeter {
 public:
  CrowdMeter();
  // Looks at the time since the last call.
  void look();
  // Whether the thread waited for more than a tenth of the time that it lately wanted to run: of
  // that, what is older than some 100 ms of it counts half, and so on. True where the kernel does
  // not tell.
  [[nodiscard]] bool is_crowded() const { return crowded_; }
  // How long it should rest so as to leave most of the processors to others: a multiple of the time
  // that it ran between the last two looks, at most 50 ms; 0 where there is no crowd.
  [[nodiscard]] std::chrono::nanoseconds rest(int multiple) const;

 private:
  bool read(uint64_t& ran_ns, uint64_t& waited_ns);

  UniqueFd fd_;
  uint64_t ran_ns_ = 0;
  uint64_t waited_ns_ = 0;
  uint64_t ran_last_ns_ = 0;       // between the last two looks
  uint64_t wanted_lately_ns_ = 0;  // running and waiting
  uint64_t waited_lately_ns_ = 0;
  bool crowded_ = true;
};

}  // namespace ckpt
