// SPDX-License-Identifier: Apache-2.0
#include "tests/sim/scheduler.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <exception>

#include "common/result.h"

namespace ckpt::sim {
namespace {

// Thrown from the yield points of a killed process; nobody but fiber_main catches it.
struct ProcessKilled {};

// 2026-01-01T00:00:00Z: when every simulation starts.
constexpr WallTime kStart = std::chrono::seconds(1767225600);
// The wall clock is set back within 2 to the power of so many steps.
constexpr uint64_t kSetBackBits = 15;
// A dying fiber that comes to so many yield points waits for something that will not happen.
constexpr uint64_t kIdleYieldsMax = 100'000;

const char* state_name(FiberState state) {
  switch (state) {
    case FiberState::kRunnable: return "can run";
    case FiberState::kLocking: return "waits for a mutex";
    case FiberState::kWaiting: return "waits";
    case FiberState::kFinished: return "is finished";
  }
  return "";
}

}  // namespace

Scheduler* Scheduler::current_ = nullptr;

WallTime Scheduler::VirtualClock::wall() const {
  WallTime time = kStart + scheduler_.now_;
  for (const auto& [step, by] : scheduler_.set_backs_) {
    time -= scheduler_.steps_ >= step ? by : WallTime{};
  }
  return time;
}

uint64_t Scheduler::clock_set_backs() const {
  return static_cast<uint64_t>(std::ranges::count_if(
      set_backs_, [this](const auto& one) { return steps_ >= one.first; }));
}

Scheduler::Scheduler(const SchedulerOptions& options)
    : options_(options),
      choices_(SeededRandom(options.seed).stream("scheduler")),
      product_random_(SeededRandom(options.seed).stream("product")),
      trace_(options.events_kept) {
  CKPT_CHECK(current_ == nullptr);
  current_ = this;
  SeededRandom random = SeededRandom(options.seed).stream("wall clock");
  for (uint64_t i = options.clock_is_set_back ? random.between(1, 3) : 0; i > 0; --i) {
    const WallTime by = random.one_in(2) ? std::chrono::hours(1) : std::chrono::hours(365 * 24);
    // As often among the first hundreds of steps as among the last thousands.
    set_backs_.emplace_back(random.below(uint64_t{1} << random.between(8, kSetBackBits)), by);
  }
  std::set_terminate(on_terminate);
}

Scheduler::~Scheduler() {
  for (ProcessId process = 0; process <= last_process_; ++process) {
    unwind(process);
  }
  current_ = nullptr;
}

void Scheduler::spawn(ProcessId process, std::string name, std::function<void()> body,
                      FiberKind kind) {
  if (dying()) {
    return;
  }
  auto fiber = std::make_unique<Fiber>();
  fiber->id = ++last_fiber_;
  fiber->name = std::move(name);
  fiber->process = process;
  fiber->kind = kind;
  fiber->body = std::move(body);
  fiber->stack = take_stack();
  fiber->context.prepare(*fiber->stack, fiber_main, fiber.get());
  foreground_count_ += kind == FiberKind::kForeground ? 1 : 0;
  queue_.add(fiber.get());
  fibers_.push_back(std::move(fiber));
}

void Scheduler::report_failure(const std::string& what) {
  if (failure_.empty() && !dying()) {
    failure_ = what;
  }
}

bool Scheduler::alive(ProcessId process) const {
  return std::find(killed_.begin(), killed_.end(), process) == killed_.end();
}

void Scheduler::remove_listener(ProcessListener* listener) {
  std::erase(listeners_, listener);
}

void Scheduler::event(const char* label, const char* object, uint64_t a, uint64_t b) {
  trace_.record({.step = steps_,
                 .time = now_,
                 .fiber = running_ != nullptr ? running_->name.c_str() : "-",
                 .label = label,
                 .object = object,
                 .a = a,
                 .b = b});
}

std::string Scheduler::describe_fibers() const {
  std::string text;
  for (const auto& fiber : fibers_) {
    if (fiber->state != FiberState::kFinished) {
      text += "  " + fiber->name + " (process " + std::to_string(fiber->process) + ") " +
              state_name(fiber->state) + "; last at " + fiber->last_label + "\n";
    }
  }
  return text;
}

// ---- running

RunEnd Scheduler::run(const RunLimits& limits) {
  CKPT_CHECK(running_ == nullptr);
  step_limit_ = steps_ + limits.steps;
  time_limit_ = now_ + limits.time;
  stopped_ = false;
  if (foreground_count_ == 0) {
    return RunEnd::kDone;
  }
  if (Fiber* const next = must_end() ? nullptr : pick_next()) {
    resume(next);
  }
  sweep();
  return end_;
}

void Scheduler::fiber_main(void* argument) {
  auto* const fiber = static_cast<Fiber*>(argument);
  fiber->context.entered();
  if (!fiber->killed) {
    try {
      fiber->body();
    } catch (const ProcessKilled&) {  // NOLINT(bugprone-empty-catch): this is its end
    }
  }
  current_->finish(fiber);
}

void Scheduler::finish(Fiber* fiber) {
  queue_.remove(fiber);
  fiber->state = FiberState::kFinished;
  foreground_count_ -= fiber->kind == FiberKind::kForeground ? 1 : 0;
  trace_.mix(fiber->id, static_cast<uint32_t>(YieldKind::kEnd));
  Fiber* next = nullptr;
  if (foreground_count_ == 0) {
    end_ = RunEnd::kDone;
  } else if (!killing_ && !must_end()) {
    next = pick_next();
  }
  running_ = next;
  fiber->context.leave_to(next != nullptr ? next->context : harness_);
}

void Scheduler::yield(YieldKind kind, const char* label) {
  Fiber* const fiber = running_;
  if (fiber == nullptr) {
    return;
  }
  if (fiber->killed) {
    yield_killed(fiber);
    return;
  }
  step(fiber, kind, label);
  if (fiber->killed) {
    throw_killed(fiber);
  }
}

void Scheduler::yield_nothrow(YieldKind kind, const char* label) noexcept {
  if (running_ != nullptr && !running_->killed) {
    step(running_, kind, label);
  }
}

void Scheduler::sleep(SteadyTime time) {
  Fiber* const fiber = running_;
  if (fiber == nullptr) {
    return;
  }
  if (fiber->killed) {
    yield_killed(fiber);
    return;
  }
  const SteadyTime deadline = now_ + time;
  step_to_wait(fiber, nullptr, &deadline);
}

void Scheduler::step_to_wait(Fiber* fiber, Fiber** waiters, const SteadyTime* deadline) {
  ++steps_;
  now_ += options_.step_time;
  trace_.mix(fiber->id, static_cast<uint32_t>(YieldKind::kWait));
  fiber->last_label = "wait";
  block(fiber, FiberState::kWaiting, waiters, deadline);
  if (fiber->killed) {
    throw_killed(fiber);
  }
}

void Scheduler::step(Fiber* fiber, YieldKind kind, const char* label) {
  ++steps_;
  now_ += options_.step_time;
  trace_.mix(fiber->id, static_cast<uint32_t>(kind));
  fiber->last_label = label;
  if (must_end() || options_.switch_one_in <= 1 || choices_.one_in(options_.switch_one_in)) {
    switch_from(fiber);
  }
}

void Scheduler::block(Fiber* fiber, FiberState state, Fiber** waiters, const SteadyTime* deadline) {
  if (killing_) {
    // It is off all queues already: kill() comes back to it.
    fiber->state = state;
    running_ = nullptr;
    fiber->context.switch_to(harness_);
    return;
  }
  queue_.wait(fiber, state, waiters, deadline);
  switch_from(fiber);
}

void Scheduler::switch_from(Fiber* fiber) {
  Fiber* const next = must_end() ? nullptr : pick_next();
  if (next == fiber) {
    return;
  }
  running_ = next;
  fiber->context.switch_to(next != nullptr ? next->context : harness_);
}

// Null when the run ends here; end_ says why.
Fiber* Scheduler::pick_next() {
  queue_.wake_timers(now_);
  Fiber* next = queue_.pick(choices_);
  if (next == nullptr && let_time_pass()) {
    next = queue_.pick(choices_);
  }
  return next;
}

// Nobody can run: time jumps to the first who waits for it.
bool Scheduler::let_time_pass() {
  if (queue_.next_deadline() == RunQueue::kNever) {
    end_ = RunEnd::kDeadlock;
    report_failure("deadlock, seed " + std::to_string(options_.seed) + ":\n" + describe_fibers());
    return false;
  }
  if (queue_.next_deadline() > time_limit_) {
    end_ = RunEnd::kTime;
    now_ = std::max(now_, time_limit_);
    return false;
  }
  now_ = std::max(now_, queue_.next_deadline());
  queue_.wake_timers(now_);
  return true;
}

bool Scheduler::must_end() {
  if (failed()) {
    end_ = RunEnd::kFailed;
  } else if (stopped_) {
    end_ = RunEnd::kStopped;
  } else if (steps_ >= step_limit_) {
    end_ = RunEnd::kSteps;
  } else if (now_ > time_limit_) {
    end_ = RunEnd::kTime;
  } else {
    return false;
  }
  return true;
}

// ---- killing

void Scheduler::kill(ProcessId process) {
  CKPT_CHECK(running_ == nullptr && process != kHarness);
  if (!alive(process)) {
    return;
  }
  killed_.push_back(process);
  for (ProcessListener* const listener : listeners_) {
    listener->on_kill(process);
  }
  unwind(process);
  for (ProcessListener* const listener : listeners_) {
    listener->on_killed(process);
  }
}

// Youngest first. One that waits for a mutex waits until its owner is unwound; those that are left then,
// and the main fiber at last, go without: what a mutex protected may be half changed by now.
void Scheduler::unwind(ProcessId process) {
  std::vector<Fiber*> dying;
  for (auto fiber = fibers_.rbegin(); fiber != fibers_.rend(); ++fiber) {
    if ((*fiber)->process == process && (*fiber)->state != FiberState::kFinished) {
      queue_.remove(fiber->get());
      (*fiber)->killed = true;
      dying.push_back(fiber->get());
    }
  }
  killing_ = true;
  const std::vector<Fiber*> others(dying.begin(), dying.empty() ? dying.end() : dying.end() - 1);
  while (unwind_some(others)) {
  }
  forcing_ = true;
  unwind_some(others);
  unwind_some(dying);
  forcing_ = false;
  killing_ = false;
  sweep();
}

// Whether any came to its end.
bool Scheduler::unwind_some(const std::vector<Fiber*>& fibers) {
  bool any = false;
  for (Fiber* const fiber : fibers) {
    if (fiber->state != FiberState::kFinished) {
      resume(fiber);
      any = any || fiber->state == FiberState::kFinished;
    }
  }
  return any;
}

void Scheduler::resume(Fiber* fiber) {
  running_ = fiber;
  harness_.switch_to(fiber->context);
  running_ = nullptr;
}

void Scheduler::throw_killed(Fiber* fiber) {
  fiber->unwinding = true;
  throw ProcessKilled{};
}

// A yield point of a fiber that was killed: throws, unless it is being unwound already.
void Scheduler::yield_killed(Fiber* fiber) {
  if (!fiber->unwinding) {
    throw_killed(fiber);
  }
  if (++fiber->idle_yields > kIdleYieldsMax) {
    finish(fiber);
  }
}

// Where the exception met a noexcept function: the rest of the fiber's stack is abandoned, and leaks.
void Scheduler::on_terminate() {
  if (current_ != nullptr && current_->running_ != nullptr && current_->running_->killed) {
    current_->finish(current_->running_);
  }
  std::fprintf(stderr, "terminated in seed %llu\n",
               static_cast<unsigned long long>(current_ != nullptr ? current_->options_.seed : 0));
  if (current_ != nullptr) {
    std::fputs(current_->trace_.last_events().c_str(), stderr);
  }
  std::abort();
}

// Frees what finished fibers had. Their names stay: the trace refers to them.
void Scheduler::sweep() {
  for (auto& fiber : fibers_) {
    if (fiber->state == FiberState::kFinished) {
      give_back(std::move(fiber->stack));
      fiber->body = nullptr;
      finished_.push_back(std::move(fiber));
    }
  }
  std::erase(fibers_, nullptr);
}

}  // namespace ckpt::sim
