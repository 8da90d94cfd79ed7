// SPDX-License-Identifier: Apache-2.0
// The fibers that can run, and those that can once a time has come.
#pragma once

#include <vector>

#include "tests/sim/fiber.h"
#include "tests/sim/random.h"

namespace ckpt::sim {

class RunQueue {
 public:
  void add(Fiber* fiber);
  // Whatever it does: it will not run by itself any more.
  void remove(Fiber* fiber);
  // No longer runnable: it waits in a list (or none), until a deadline (or none).
  void wait(Fiber* fiber, FiberState state, Fiber** waiters, const SteadyTime* deadline);
  // Runnable again, off every list.
  void wake(Fiber* fiber);
  // Wakes those whose time has come.
  void wake_timers(SteadyTime now) {
    if (now >= next_deadline_) {
      wake_due(now);
    }
  }
  [[nodiscard]] SteadyTime next_deadline() const { return next_deadline_; }
  // One of the fibers that can run, or null.
  [[nodiscard]] Fiber* pick(SeededRandom& random) const {
    return runnable_.empty() ? nullptr : runnable_[random.below(runnable_.size())];
  }

  static constexpr SteadyTime kNever = SteadyTime::max();

 private:
  void remove_runnable(Fiber* fiber);
  void remove_timer(Fiber* fiber);
  void wake_due(SteadyTime now);
  void find_next_deadline();

  std::vector<Fiber*> runnable_;  // Fiber::runnable_index says where
  std::vector<Fiber*> timers_;
  SteadyTime next_deadline_ = kNever;
};

// The lists of mutexes and condition variables.
void list_add(Fiber** head, Fiber* fiber);
void list_remove(Fiber** head, Fiber* fiber);

}  // namespace ckpt::sim
