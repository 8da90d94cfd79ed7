// SPDX-License-Identifier: Apache-2.0
// Mutex and CondVar of the simulator: the interface of common/mutex.h, which includes this file under
// CKPT_SIM. Threads are fibers of one scheduler; every call is a point where another may go on.
//
// Failure: to lock a mutex twice, to unlock one that is not held, and a deadlock end the run of the seed
//          with a report. Outside of any fiber (the harness itself) nothing waits.
#pragma once

#ifndef CKPT_CAPABILITY
#error "include common/mutex.h instead"
#endif

namespace ckpt {

namespace sim {
class Fiber;
class Scheduler;
}

class CKPT_CAPABILITY("mutex") Mutex {
 public:
  Mutex() = default;
  Mutex(const Mutex&) = delete;
  Mutex& operator=(const Mutex&) = delete;
  void lock() CKPT_ACQUIRE();
  bool try_lock() CKPT_TRY_ACQUIRE(true);
  // Does not throw, even when the process is being killed: it is called by destructors.
  void unlock() noexcept CKPT_RELEASE();

 private:
  friend class CondVar;
  [[nodiscard]] bool held_by_another(const sim::Fiber* fiber) const;
  void take(sim::Scheduler& scheduler);
  void release(sim::Scheduler& scheduler) noexcept;

  sim::Fiber* owner_ = nullptr;
  sim::Fiber* waiters_ = nullptr;  // a list through the fibers
  bool poisoned_ = false;          // its holder was killed: what it protects may be half changed
  bool taken_to_clean_up_ = false;
};

// Spurious wake-ups happen, as chance has it.
class CondVar {
 public:
  CondVar() = default;
  CondVar(const CondVar&) = delete;
  CondVar& operator=(const CondVar&) = delete;
  void wait(Mutex& mutex) CKPT_REQUIRES(mutex);
  // False when the time passed first; the time is virtual.
  bool wait_for(Mutex& mutex, std::chrono::nanoseconds time) CKPT_REQUIRES(mutex);
  void notify_one() noexcept;
  void notify_all() noexcept;

 private:
  bool wait_until(Mutex& mutex, const std::chrono::nanoseconds* deadline);

  sim::Fiber* waiters_ = nullptr;
};

// A point between two atomic operations where another fiber may go on.
void sim_point();

}  // namespace ckpt
