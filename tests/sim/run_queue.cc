// SPDX-License-Identifier: Apache-2.0
#include "tests/sim/run_queue.h"

#include <algorithm>

namespace ckpt::sim {

void list_add(Fiber** head, Fiber* fiber) {
  fiber->next_waiter = *head;
  *head = fiber;
}

void list_remove(Fiber** head, Fiber* fiber) {
  while (*head != nullptr && *head != fiber) {
    head = &(*head)->next_waiter;
  }
  if (*head != nullptr) {
    *head = fiber->next_waiter;
  }
  fiber->next_waiter = nullptr;
}

void RunQueue::add(Fiber* fiber) {
  fiber->state = FiberState::kRunnable;
  fiber->queued = true;
  fiber->runnable_index = runnable_.size();
  runnable_.push_back(fiber);
}

void RunQueue::remove(Fiber* fiber) {
  if (fiber->queued) {
    remove_runnable(fiber);
  }
  remove_timer(fiber);
  if (fiber->waiters != nullptr) {
    list_remove(fiber->waiters, fiber);
    fiber->waiters = nullptr;
  }
}

void RunQueue::wait(Fiber* fiber, FiberState state, Fiber** waiters, const SteadyTime* deadline) {
  remove_runnable(fiber);
  fiber->state = state;
  fiber->waiters = waiters;
  fiber->timed_out = false;
  if (waiters != nullptr) {
    list_add(waiters, fiber);
  }
  if (deadline != nullptr) {
    fiber->timed = true;
    fiber->deadline = *deadline;
    timers_.push_back(fiber);
    next_deadline_ = std::min(next_deadline_, *deadline);
  }
}

void RunQueue::wake(Fiber* fiber) {
  remove(fiber);
  add(fiber);
}

void RunQueue::remove_runnable(Fiber* fiber) {
  Fiber* const last = runnable_.back();
  runnable_[fiber->runnable_index] = last;
  last->runnable_index = fiber->runnable_index;
  runnable_.pop_back();
  fiber->queued = false;
}

void RunQueue::remove_timer(Fiber* fiber) {
  if (!fiber->timed) {
    return;
  }
  fiber->timed = false;
  timers_.erase(std::find(timers_.begin(), timers_.end(), fiber));
  find_next_deadline();
}

void RunQueue::wake_due(SteadyTime now) {
  const std::vector<Fiber*> timers = timers_;
  for (Fiber* const fiber : timers) {
    if (fiber->deadline <= now) {
      wake(fiber);
      fiber->timed_out = true;
    }
  }
}

void RunQueue::find_next_deadline() {
  next_deadline_ = kNever;
  for (const Fiber* const fiber : timers_) {
    next_deadline_ = std::min(next_deadline_, fiber->deadline);
  }
}

}  // namespace ckpt::sim
