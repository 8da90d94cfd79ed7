// SPDX-License-Identifier: Apache-2.0
#include "common/mutex.h"
#include "common/result.h"
#include "tests/sim/scheduler.h"

namespace ckpt {
namespace {

using sim::Fiber;
using sim::FiberState;
using sim::Scheduler;
using sim::YieldKind;

Scheduler* scheduler_in_fiber() {
  Scheduler* const scheduler = Scheduler::current();
  return scheduler != nullptr && scheduler->in_fiber() ? scheduler : nullptr;
}

}  // namespace

void Mutex::lock() CKPT_NO_ANALYSIS {
  if (Scheduler* const scheduler = scheduler_in_fiber()) {
    // Does not throw here: destructors lock, too, and a killed fiber may as well die at its next
    // step.
    scheduler->yield_nothrow(YieldKind::kLock, "lock");
    take(*scheduler);
  }
}

bool Mutex::try_lock() CKPT_NO_ANALYSIS {
  if (Scheduler* const scheduler = scheduler_in_fiber()) {
    scheduler->yield_nothrow(YieldKind::kLock, "try_lock");
    const Fiber* const fiber = scheduler->running_;
    // (One that holds it may ask, too: std::mutex need not answer, and no caller does so.)
    if (held_by_another(fiber) || owner_ == fiber) {
      return false;
    }
    take(*scheduler);
  }
  return true;
}

void Mutex::unlock() noexcept CKPT_NO_ANALYSIS {
  if (Scheduler* const scheduler = scheduler_in_fiber()) {
    release(*scheduler);
    scheduler->yield_nothrow(YieldKind::kUnlock, "unlock");
  }
}

bool Mutex::held_by_another(const Fiber* fiber) const {
  return owner_ != nullptr && owner_ != fiber && owner_->state != FiberState::kFinished;
}

void Mutex::take(Scheduler& scheduler) {
  Fiber* const fiber = scheduler.running_;
  if (owner_ == fiber && !fiber->killed) {
    scheduler.report_failure(fiber->name + " locks a mutex that it holds");
    scheduler.yield(YieldKind::kLock, "lock twice");
  }
  while (held_by_another(fiber) && !(fiber->unwinding && scheduler.forcing_)) {
    scheduler.block(fiber, FiberState::kLocking, &waiters_, nullptr);
    if (fiber->killed && scheduler.forcing_) {
      scheduler.yield_killed(fiber);
    }
  }
  if (poisoned_ && fiber->killed) {
    // What it protects was left half changed: to go on would find nonsense.
    scheduler.yield_killed(fiber);
  }
  owner_ = fiber;
  taken_to_clean_up_ = fiber->unwinding;
}

void Mutex::release(Scheduler& scheduler) noexcept {
  Fiber* const fiber = scheduler.running_;
  if (owner_ != fiber) {
    if (!fiber->killed) {
      scheduler.report_failure(fiber->name + " unlocks a mutex that it does not hold");
    }
    return;
  }
  poisoned_ = poisoned_ || (fiber->unwinding && !taken_to_clean_up_);
  owner_ = nullptr;
  while (waiters_ != nullptr) {
    scheduler.queue_.wake(waiters_);
  }
}

void CondVar::wait(Mutex& mutex) CKPT_NO_ANALYSIS { wait_until(mutex, nullptr); }

bool CondVar::wait_for(Mutex& mutex, std::chrono::nanoseconds time) CKPT_NO_ANALYSIS {
  const Scheduler* const scheduler = scheduler_in_fiber();
  const std::chrono::nanoseconds now = scheduler != nullptr ? scheduler->now() : time;
  // No overflow: a year is for ever.
  const auto deadline = now + std::min<std::chrono::nanoseconds>(time, std::chrono::hours(8766));
  return wait_until(mutex, &deadline);
}

bool CondVar::wait_until(Mutex& mutex, const std::chrono::nanoseconds* deadline) {
  Scheduler* const scheduler = scheduler_in_fiber();
  if (scheduler == nullptr) {
    return deadline == nullptr;
  }
  Fiber* const fiber = scheduler->running_;
  if (fiber->killed) {
    scheduler->yield_killed(fiber);
    return true;
  }
  mutex.release(*scheduler);
  fiber->timed_out = false;
  if (scheduler->choices_.one_in(scheduler->options_.spurious_one_in)) {
    scheduler->yield(YieldKind::kWait, "spurious wake-up");
  } else {
    scheduler->step_to_wait(fiber, &waiters_, deadline);
  }
  const bool timed_out = fiber->timed_out;
  mutex.take(*scheduler);
  return !timed_out;
}

void CondVar::notify_one() noexcept {
  Scheduler* const scheduler = Scheduler::current();
  if (scheduler == nullptr || waiters_ == nullptr) {
    return;
  }
  uint64_t count = 0;
  for (const Fiber* fiber = waiters_; fiber != nullptr; fiber = fiber->next_waiter) {
    ++count;
  }
  Fiber* chosen = waiters_;
  for (uint64_t skip = scheduler->choices_.below(count); skip > 0; --skip) {
    chosen = chosen->next_waiter;
  }
  scheduler->queue_.wake(chosen);
  if (scheduler->in_fiber()) {
    scheduler->yield_nothrow(YieldKind::kNotify, "notify");
  }
}

void CondVar::notify_all() noexcept {
  Scheduler* const scheduler = Scheduler::current();
  if (scheduler == nullptr || waiters_ == nullptr) {
    return;
  }
  while (waiters_ != nullptr) {
    scheduler->queue_.wake(waiters_);
  }
  if (scheduler->in_fiber()) {
    scheduler->yield_nothrow(YieldKind::kNotify, "notify");
  }
}

void sim_point() {
  if (Scheduler* const scheduler = scheduler_in_fiber()) {
    scheduler->yield(YieldKind::kPoint, "point");
  }
}

}  // namespace ckpt
