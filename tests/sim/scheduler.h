// SPDX-License-Identifier: Apache-2.0
// One seeded scheduler runs the threads of all simulated processes as fibers, one at a time, and picks
// the next one at every yield point: a lock, an unlock, a wait, a notification, sim_point(), and every
// operation on a simulated file, directory or shared memory. The same seed gives the same run.
//
// Lifetime: one at a time; objects of the product go before it, the disk and the memory too.
// Failure:  report_failure() ends the run; the first report is kept.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "common/clock.h"
#include "common/mutex.h"
#include "tests/sim/fiber.h"
#include "tests/sim/random.h"
#include "tests/sim/run_queue.h"
#include "tests/sim/trace.h"

namespace ckpt::sim {

enum class YieldKind : uint8_t {
  kStart, kPoint, kLock, kUnlock, kWait, kNotify, kSleep, kFile, kDirectory, kMemory, kEnd
};

struct SchedulerOptions {
  uint64_t seed = 0;
  uint32_t switch_one_in = 1;     // at a yield point; otherwise the same fiber goes on
  uint32_t spurious_one_in = 64;  // waits that end for no reason; 0: none
  SteadyTime step_time = std::chrono::microseconds(1);  // passes at each yield point
  size_t events_kept = 200;
  bool clock_is_set_back = false;  // the wall clock, by an hour or a year, once to three times
};

struct RunLimits {
  uint64_t steps = 10'000'000;                  // yield points, of this call
  SteadyTime time = std::chrono::hours(1);      // virtual time, of this call
};

enum class RunEnd {
  kDone,      // no foreground fiber is left
  kSteps,     // so many steps; the fibers stand at yield points
  kTime,      // nobody can run before the limit of time
  kStopped,   // somebody called stop()
  kDeadlock,  // foreground fibers are left, none can run and none ever will; reported as a failure
  kFailed,    // somebody called report_failure()
};

// What belongs to processes and has to know when one dies.
class ProcessListener {
 public:
  virtual ~ProcessListener() = default;
  // The process stands still; none of its fibers has been unwound yet.
  virtual void on_kill(ProcessId process) = 0;
  // All its fibers are gone.
  virtual void on_killed(ProcessId process) = 0;
};

class Scheduler {
 public:
  explicit Scheduler(const SchedulerOptions& options);
  ~Scheduler();  // kills what still runs
  Scheduler(const Scheduler&) = delete;
  Scheduler& operator=(const Scheduler&) = delete;
  // The one there is; null before and after.
  static Scheduler* current() { return current_; }

  // ---- the harness, from outside and from fibers

  // A number that was never used before.
  ProcessId new_process() { return ++last_process_; }
  // The first fiber of a process is its main(): a kill unwinds it last, so what stands on its stack may be
  // used by the others. A dying fiber spawns nothing.
  void spawn(ProcessId process, std::string name, std::function<void()> body,
             FiberKind kind = FiberKind::kForeground);
  void stop() { stopped_ = true; }
  // Keeps the first report; ignores those of dying fibers. The run ends at the next yield point.
  void report_failure(const std::string& what);
  [[nodiscard]] const std::string& failure() const { return failure_; }
  [[nodiscard]] bool failed() const { return !failure_.empty(); }
  // Whether a process has not been killed.
  [[nodiscard]] bool alive(ProcessId process) const;

  // ---- the harness, from outside only

  RunEnd run(const RunLimits& limits);
  // SIGKILL: every fiber of the process is unwound by an exception thrown from the yield point where it
  // stands, and nothing it still does has an effect outside of its own memory.
  void kill(ProcessId process);
  void add_listener(ProcessListener* listener) { listeners_.push_back(listener); }
  void remove_listener(ProcessListener* listener);
  // What runs, and what it waits for; one fiber a line.
  [[nodiscard]] std::string describe_fibers() const;
  void advance(SteadyTime time) { now_ += time; }

  // ---- fibers

  // Whether the caller is a fiber, not the harness outside.
  [[nodiscard]] bool in_fiber() const { return running_ != nullptr; }
  // The process of the fiber that runs, or the harness.
  [[nodiscard]] ProcessId process() const { return running_ ? running_->process : kHarness; }
  // Another fiber may go on. Throws when the process has been killed meanwhile.
  void yield(YieldKind kind, const char* label);
  // The same, for destructors; the next yield() throws.
  void yield_nothrow(YieldKind kind, const char* label) noexcept;
  void sleep(SteadyTime time);
  // True while the fiber that runs is only cleaning up after a kill: nothing it does may have an effect.
  [[nodiscard]] bool dying() const { return running_ != nullptr && running_->killed; }

  [[nodiscard]] SteadyTime now() const { return now_; }
  [[nodiscard]] Clock& clock() { return clock_; }
  [[nodiscard]] Random& random() { return product_random_; }  // the product's
  SeededRandom& choices() { return choices_; }                // the scheduler's own
  // Bookmarks for the report of a failure. object must outlive the scheduler.
  void event(const char* label, const char* object = "", uint64_t a = 0, uint64_t b = 0);
  [[nodiscard]] uint64_t steps() const { return steps_; }
  [[nodiscard]] uint64_t trace_hash() const { return trace_.hash(); }
  [[nodiscard]] const Trace& trace() const { return trace_; }
  // How often the wall clock was set back until now.
  [[nodiscard]] uint64_t clock_set_backs() const;

 private:
  friend class ::ckpt::Mutex;
  friend class ::ckpt::CondVar;

  class VirtualClock final : public Clock {
   public:
    explicit VirtualClock(const Scheduler& scheduler) : scheduler_(scheduler) {}
    [[nodiscard]] SteadyTime steady() const override { return scheduler_.now_; }
    [[nodiscard]] WallTime wall() const override;

   private:
    const Scheduler& scheduler_;  // owns this
  };

  static void fiber_main(void* fiber);
  [[noreturn]] static void on_terminate();
  [[noreturn]] void finish(Fiber* fiber);

  void step(Fiber* fiber, YieldKind kind, const char* label);
  void block(Fiber* fiber, FiberState state, Fiber** waiters, const SteadyTime* deadline);
  void step_to_wait(Fiber* fiber, Fiber** waiters, const SteadyTime* deadline);
  void switch_from(Fiber* fiber);
  Fiber* pick_next();
  bool let_time_pass();
  bool must_end();

  [[noreturn]] void throw_killed(Fiber* fiber);
  void yield_killed(Fiber* fiber);
  void unwind(ProcessId process);
  bool unwind_some(const std::vector<Fiber*>& fibers);
  void resume(Fiber* fiber);
  void sweep();

  static Scheduler* current_;

  SchedulerOptions options_;
  SeededRandom choices_;
  SeededRandom product_random_;
  VirtualClock clock_{*this};
  Trace trace_;
  SteadyTime now_{};
  std::vector<std::pair<uint64_t, WallTime>> set_backs_;  // of the wall clock: at which step, by how much
  uint64_t steps_ = 0;

  RunQueue queue_;
  std::vector<std::unique_ptr<Fiber>> fibers_;    // in the order of their birth
  std::vector<std::unique_ptr<Fiber>> finished_;  // their names are in the trace
  std::vector<ProcessId> killed_;
  std::vector<ProcessListener*> listeners_;
  Fiber* running_ = nullptr;
  Context harness_;
  uint32_t last_fiber_ = 0;
  ProcessId last_process_ = kHarness;
  uint32_t foreground_count_ = 0;

  uint64_t step_limit_ = 0;
  SteadyTime time_limit_{};
  RunEnd end_ = RunEnd::kDone;
  bool stopped_ = false;
  bool killing_ = false;  // kill() runs fibers one by one, to unwind them
  bool forcing_ = false;  // those that still wait for a mutex have to go without
  std::string failure_;
};

}  // namespace ckpt::sim
