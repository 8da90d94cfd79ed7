// SPDX-License-Identifier: Apache-2.0
// Confirmed checkpoints that gather before a pass of the applier.
#pragma once

#include <optional>

#include "plugin/pace.h"

namespace ckpt {

// They gather for so long, or until they are so large, where processors are short: they share the
// pass's sync, and what several of them write is written back once. A rollback or a confirmation
// that needs them applied does not ask.
inline constexpr std::chrono::seconds kGatherTime{10};
inline constexpr uint64_t kGatherBytes = uint64_t{512} << 20U;
// No client has written for so long: nobody is disturbed.
inline constexpr std::chrono::milliseconds kGatherLook{250};

// Threads: one at a time.
class Gather {
 public:
  // Nothing waits to be applied.
  void clear() { began_ = false; }
  // Checkpoints of so many bytes wait: whether a pass may begin, or go on.
  [[nodiscard]] bool is_over(uint64_t waiting_bytes, bool is_crowded, SteadyTime now,
                             std::chrono::nanoseconds since_write) {
    if (!began_) {
      began_ = true;
      pace_.rest_for(kGatherTime, now);
    }
    return !is_crowded || waiting_bytes >= kGatherBytes || pace_.may_go_on(now, since_write);
  }
  // How long until is_over() is worth asking again.
  [[nodiscard]] std::chrono::nanoseconds rest(SteadyTime now) const { return pace_.rest(now); }

 private:
  bool began_ = false;
  Pace pace_{kGatherLook};
};

}  // namespace ckpt
