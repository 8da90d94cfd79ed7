// SPDX-License-Identifier: Apache-2.0
// Mutex and CondVar with clang's capability annotations (std::mutex is none for clang 14 with
// libstdc++). In the simulator (CKPT_SIM) both belong to its scheduler: every lock and wait is a
// point where another thread of the simulated process may run.
#pragma once

#include <chrono>

#if defined(__clang__)
#define CKPT_ATTRIBUTE(x) __attribute__((x))
#else
#define CKPT_ATTRIBUTE(x)
#endif
#define CKPT_CAPABILITY(x) CKPT_ATTRIBUTE(capability(x))
#define CKPT_SCOPED_CAPABILITY CKPT_ATTRIBUTE(scoped_lockable)
#define CKPT_GUARDED_BY(x) CKPT_ATTRIBUTE(guarded_by(x))
#define CKPT_REQUIRES(...) CKPT_ATTRIBUTE(requires_capability(__VA_ARGS__))
#define CKPT_EXCLUDES(...) CKPT_ATTRIBUTE(locks_excluded(__VA_ARGS__))
#define CKPT_ACQUIRE(...) CKPT_ATTRIBUTE(acquire_capability(__VA_ARGS__))
#define CKPT_TRY_ACQUIRE(...) CKPT_ATTRIBUTE(try_acquire_capability(__VA_ARGS__))
#define CKPT_RELEASE(...) CKPT_ATTRIBUTE(release_capability(__VA_ARGS__))
#define CKPT_NO_ANALYSIS CKPT_ATTRIBUTE(no_thread_safety_analysis)

#ifdef CKPT_SIM
#include "tests/sim/sim_mutex.h"
#else
#include <condition_variable>
#include <mutex>

namespace ckpt {

class CKPT_CAPABILITY("mutex") Mutex {
 public:
  Mutex() = default;
  Mutex(const Mutex&) = delete;
  Mutex& operator=(const Mutex&) = delete;
  void lock() CKPT_ACQUIRE() { mutex_.lock(); }
  // False: another thread has it.
  bool try_lock() CKPT_TRY_ACQUIRE(true) { return mutex_.try_lock(); }
  void unlock() CKPT_RELEASE() { mutex_.unlock(); }

 private:
  friend class CondVar;
  std::mutex mutex_;
};

// Waits with a Mutex that the caller holds; spurious wake-ups happen: wait in a loop.
class CondVar {
 public:
  void wait(Mutex& mutex) CKPT_REQUIRES(mutex) {
    std::unique_lock lock(mutex.mutex_, std::adopt_lock);
    condition_.wait(lock);
    lock.release();
  }
  // False when the time passed first.
  bool wait_for(Mutex& mutex, std::chrono::nanoseconds time) CKPT_REQUIRES(mutex) {
    std::unique_lock lock(mutex.mutex_, std::adopt_lock);
    const bool notified = condition_.wait_for(lock, time) == std::cv_status::no_timeout;
    lock.release();
    return notified;
  }
  void notify_one() { condition_.notify_one(); }
  void notify_all() { condition_.notify_all(); }

 private:
  std::condition_variable condition_;
};

// A point between two atomic operations where the simulator may switch; nothing in the product.
inline void sim_point() {}

}  // namespace ckpt
#endif

namespace ckpt {

class CKPT_SCOPED_CAPABILITY MutexLock {
 public:
  explicit MutexLock(Mutex& mutex) CKPT_ACQUIRE(mutex) : mutex_(mutex) { mutex_.lock(); }
  ~MutexLock() CKPT_RELEASE() { mutex_.unlock(); }
  MutexLock(const MutexLock&) = delete;
  MutexLock& operator=(const MutexLock&) = delete;

 private:
  Mutex& mutex_;
};

}  // namespace ckpt

// Bugs planted on purpose, chosen by name at run time in the simulator's build only, where each
// must be found. In the product every one is the constant false.
#ifdef CKPT_SIM
namespace ckpt::sim {
bool planted(const char* name);
void count_probe(const char* name);
}  // namespace ckpt::sim
#define CKPT_PLANTED(name) (::ckpt::sim::planted(#name))
#else
#define CKPT_PLANTED(name) false
#endif

// A rare situation, which the simulator counts: one that never comes up there is not tested.
#ifdef CKPT_SIM
#define CKPT_PROBE(name) (::ckpt::sim::count_probe(#name))
#else
#define CKPT_PROBE(name) static_cast<void>(0)
#endif
