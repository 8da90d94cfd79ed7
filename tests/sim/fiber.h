// SPDX-License-Identifier: Apache-2.0
// A fiber: what a thread of the product is in the simulator. Private to the scheduler and sim_mutex.cc.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "common/clock.h"
#include "tests/sim/context.h"

namespace ckpt::sim {

using ProcessId = uint32_t;
inline constexpr ProcessId kHarness = 0;  // the simulation's own fibers; never killed

// A run lasts as long as a foreground fiber does.
enum class FiberKind { kForeground, kBackground };

enum class FiberState {
  kRunnable,
  kLocking,   // for a mutex
  kWaiting,   // for a CondVar, or for time to pass
  kFinished,
};

// A list through Fiber::next_waiter; the head is in the mutex or CondVar.
class Fiber {
 public:
  uint32_t id = 0;
  std::string name;
  ProcessId process = kHarness;
  FiberKind kind = FiberKind::kForeground;
  FiberState state = FiberState::kRunnable;
  std::function<void()> body;

  // Killing: `killed` is set from outside; the next yield point throws and sets `unwinding`; from then on
  // yield points return at once.
  bool killed = false;
  bool unwinding = false;

  bool timed = false;      // waiting, until `deadline` at most
  bool timed_out = false;
  SteadyTime deadline{};
  Fiber** waiters = nullptr;  // the list that it waits in, if any
  Fiber* next_waiter = nullptr;
  bool queued = false;        // in the scheduler's list, at runnable_index
  size_t runnable_index = 0;

  const char* last_label = "start";
  uint64_t idle_yields = 0;  // while unwinding: many mean that a destructor waits for ever
  Context context;
  std::unique_ptr<Stack> stack;
};

}  // namespace ckpt::sim
