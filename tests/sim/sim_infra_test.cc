// SPDX-License-Identifier: Apache-2.0
// The simulator's own machinery: fibers, locks, virtual time, kills, shared memory, guard.
#include <gtest/gtest.h>

#include "common/mutex.h"
#include "tests/sim/guard.h"
#include "tests/sim/planted.h"
#include "tests/sim/scheduler.h"
#include "tests/sim/sim_disk.h"
#include "tests/sim/sim_memory.h"

namespace ckpt::sim {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

// A run of five fibers over two mutexes and a condition; what it returns depends on the interleaving.
struct Outcome {
  std::vector<int> order;
  uint64_t hash = 0;
  uint64_t steps = 0;
  auto operator<=>(const Outcome&) const = default;
};

Outcome run_five(uint64_t seed) {
  Scheduler scheduler({.seed = seed});
  Mutex mutex;
  CondVar condition;
  Outcome outcome;
  for (int i = 0; i < 5; ++i) {
    scheduler.spawn(kHarness, "fiber" + std::to_string(i), [&, i] {
      for (int round = 0; round < 10; ++round) {
        MutexLock lock(mutex);
        outcome.order.push_back(i);
        condition.notify_one();
        condition.wait_for(mutex, milliseconds(1));
      }
    });
  }
  EXPECT_EQ(scheduler.run({}), RunEnd::kDone);
  outcome.hash = scheduler.trace_hash();
  outcome.steps = scheduler.steps();
  return outcome;
}

TEST(SchedulerTest, SameSeedSameRun) {
  for (uint64_t seed = 0; seed < 20; ++seed) {
    EXPECT_EQ(run_five(seed), run_five(seed)) << seed;
  }
}

TEST(SchedulerTest, OtherSeedOtherRun) {
  std::set<uint64_t> hashes;
  for (uint64_t seed = 0; seed < 50; ++seed) {
    hashes.insert(run_five(seed).hash);
  }
  EXPECT_EQ(hashes.size(), 50U);
}

TEST(SchedulerTest, MutexExcludes) {
  Scheduler scheduler({.seed = 1});
  Mutex mutex;
  int inside = 0;
  int most = 0;
  for (int i = 0; i < 4; ++i) {
    scheduler.spawn(kHarness, "locker", [&] {
      for (int round = 0; round < 100; ++round) {
        MutexLock lock(mutex);
        most = std::max(most, ++inside);
        sim_point();
        --inside;
      }
    });
  }
  EXPECT_EQ(scheduler.run({}), RunEnd::kDone);
  EXPECT_EQ(most, 1);
}

TEST(SchedulerTest, UnprotectedRaceIsFound) {
  int lost = 0;
  for (uint64_t seed = 0; seed < 20; ++seed) {
    Scheduler scheduler({.seed = seed});
    int count = 0;
    for (int i = 0; i < 2; ++i) {
      scheduler.spawn(kHarness, "adder", [&] {
        for (int round = 0; round < 10; ++round) {
          const int before = count;
          sim_point();
          count = before + 1;
        }
      });
    }
    EXPECT_EQ(scheduler.run({}), RunEnd::kDone);
    lost += count < 20 ? 1 : 0;
  }
  EXPECT_EQ(lost, 20);
}

TEST(SchedulerTest, TimeJumpsToTheEarliestWaiter) {
  Scheduler scheduler({.seed = 3, .spurious_one_in = 0});
  Mutex mutex;
  CondVar condition;
  std::vector<int> order;
  scheduler.spawn(kHarness, "late", [&] {
    scheduler.sleep(seconds(2));
    order.push_back(2);
  });
  scheduler.spawn(kHarness, "early", [&] {
    MutexLock lock(mutex);
    EXPECT_FALSE(condition.wait_for(mutex, seconds(1)));
    order.push_back(1);
  });
  EXPECT_EQ(scheduler.run({}), RunEnd::kDone);
  EXPECT_EQ(order, (std::vector<int>{1, 2}));
  EXPECT_GE(scheduler.now(), seconds(2));
  EXPECT_LT(scheduler.now(), seconds(3));
}

TEST(SchedulerTest, NotifiedWaiterIsNotTimedOut) {
  Scheduler scheduler({.seed = 4, .spurious_one_in = 0});
  Mutex mutex;
  CondVar condition;
  bool ready = false;
  scheduler.spawn(kHarness, "waiter", [&] {
    MutexLock lock(mutex);
    while (!ready) {
      EXPECT_TRUE(condition.wait_for(mutex, seconds(100)));
    }
  });
  scheduler.spawn(kHarness, "notifier", [&] {
    scheduler.sleep(seconds(1));
    MutexLock lock(mutex);
    ready = true;
    condition.notify_one();
  });
  EXPECT_EQ(scheduler.run({}), RunEnd::kDone);
  EXPECT_LT(scheduler.now(), seconds(50));
}

TEST(SchedulerTest, SpuriousWakeUpsHappen) {
  Scheduler scheduler({.seed = 5, .spurious_one_in = 2});
  Mutex mutex;
  CondVar condition;
  int early = 0;
  scheduler.spawn(kHarness, "waiter", [&] {
    MutexLock lock(mutex);
    for (int round = 0; round < 20; ++round) {
      early += condition.wait_for(mutex, seconds(1)) ? 1 : 0;
    }
  });
  EXPECT_EQ(scheduler.run({}), RunEnd::kDone);
  EXPECT_GT(early, 2);
}

TEST(SchedulerTest, ReportsDeadlockWithNamesAndSeed) {
  bool found = false;
  for (uint64_t seed = 0; seed < 50 && !found; ++seed) {
    Scheduler scheduler({.seed = seed});
    Mutex one;
    Mutex two;
    scheduler.spawn(kHarness, "forward", [&] {
      MutexLock first(one);
      MutexLock second(two);
    });
    scheduler.spawn(kHarness, "backward", [&] {
      MutexLock first(two);
      MutexLock second(one);
    });
    if (scheduler.run({}) == RunEnd::kDeadlock) {
      found = true;
      EXPECT_NE(scheduler.failure().find("forward"), std::string::npos) << scheduler.failure();
      EXPECT_NE(scheduler.failure().find("backward"), std::string::npos) << scheduler.failure();
      EXPECT_NE(scheduler.failure().find("seed " + std::to_string(seed)), std::string::npos);
    }
  }
  EXPECT_TRUE(found);
}

TEST(SchedulerTest, LostWakeUpIsADeadlock) {
  Scheduler scheduler({.seed = 1, .spurious_one_in = 0});
  Mutex mutex;
  CondVar condition;
  scheduler.spawn(kHarness, "waiter", [&] {
    MutexLock lock(mutex);
    condition.wait(mutex);
  });
  EXPECT_EQ(scheduler.run({}), RunEnd::kDeadlock);
}

TEST(SchedulerTest, LockingTwiceIsReported) {
  Scheduler scheduler({.seed = 1});
  Mutex mutex;
  scheduler.spawn(kHarness, "fiber", [&]() CKPT_NO_ANALYSIS {
    mutex.lock();
    mutex.lock();
  });
  EXPECT_EQ(scheduler.run({}), RunEnd::kFailed);
}

TEST(SchedulerTest, BackgroundFibersDoNotKeepARunAlive) {
  Scheduler scheduler({.seed = 1});
  Mutex mutex;
  CondVar condition;
  scheduler.spawn(
      kHarness, "pump",
      [&] {
        MutexLock lock(mutex);
        for (;;) {
          condition.wait_for(mutex, milliseconds(100));
        }
      },
      FiberKind::kBackground);
  scheduler.spawn(kHarness, "work", [&] { scheduler.sleep(seconds(1)); });
  EXPECT_EQ(scheduler.run({}), RunEnd::kDone);
}

TEST(SchedulerTest, LimitsEndARunAndTheNextGoesOn) {
  Scheduler scheduler({.seed = 1});
  int rounds = 0;
  scheduler.spawn(kHarness, "work", [&] {
    for (; rounds < 100; ++rounds) {
      sim_point();
    }
  });
  EXPECT_EQ(scheduler.run({.steps = 10}), RunEnd::kSteps);
  EXPECT_EQ(scheduler.steps(), 10U);
  EXPECT_LT(rounds, 100);
  EXPECT_EQ(scheduler.run({}), RunEnd::kDone);
  EXPECT_EQ(rounds, 100);
}

// ---- kills

struct Counted {
  explicit Counted(int& alive) : alive_(alive) { ++alive_; }
  ~Counted() { --alive_; }
  Counted(const Counted&) = delete;
  Counted& operator=(const Counted&) = delete;
  int& alive_;
};

TEST(KillTest, UnwindsEveryFiberOfTheProcessOnly) {
  for (uint64_t steps = 0; steps < 60; ++steps) {
    Scheduler scheduler({.seed = steps});
    Mutex mutex;
    CondVar condition;
    int alive = 0;
    bool other_done = false;
    const ProcessId process = scheduler.new_process();
    for (int i = 0; i < 3; ++i) {
      scheduler.spawn(process, "victim", [&] {
        const Counted outer(alive);
        for (;;) {
          MutexLock lock(mutex);
          const Counted inner(alive);
          sim_point();
          condition.wait_for(mutex, milliseconds(1));
        }
      });
    }
    scheduler.spawn(kHarness, "other", [&] {
      scheduler.sleep(milliseconds(5));
      other_done = true;
    });
    EXPECT_EQ(scheduler.run({.steps = steps}), RunEnd::kSteps);
    scheduler.kill(process);
    EXPECT_EQ(alive, 0) << steps;
    EXPECT_FALSE(scheduler.alive(process));
    EXPECT_EQ(scheduler.run({}), RunEnd::kDone);
    EXPECT_TRUE(other_done);
  }
}

TEST(KillTest, MainIsUnwoundLast) {
  Scheduler scheduler({.seed = 9});
  const ProcessId process = scheduler.new_process();
  bool pump_saw_it = false;
  scheduler.spawn(process, "main", [&] {
    int on_the_stack = 0;
    const Counted counted(on_the_stack);
    scheduler.spawn(process, "pump", [&] {
      struct Looks {
        ~Looks() { saw = count == 1; }
        int& count;
        bool& saw;
      } const looks{on_the_stack, pump_saw_it};
      scheduler.sleep(seconds(10));
    });
    scheduler.sleep(seconds(20));
  });
  EXPECT_EQ(scheduler.run({.time = seconds(1)}), RunEnd::kTime);
  scheduler.kill(process);
  EXPECT_TRUE(pump_saw_it);
}

TEST(KillTest, ADyingFiberSpawnsNothing) {
  for (uint64_t seed = 0; seed < 20; ++seed) {
    Scheduler scheduler({.seed = seed});
    Mutex mutex;
    const ProcessId process = scheduler.new_process();
    bool ran = false;
    scheduler.spawn(process, "victim", [&] {
      { MutexLock lock(mutex); }
      scheduler.spawn(process, "late", [&] { ran = true; });
    });
    // It stands at the lock or the unlock, which do not throw.
    EXPECT_EQ(scheduler.run({.steps = 1 + seed % 2}), RunEnd::kSteps);
    scheduler.kill(process);
    EXPECT_EQ(scheduler.run({}), RunEnd::kDone);
    EXPECT_FALSE(ran);
  }
}

TEST(KillTest, DestructorsMayLock) {
  // Whoever unwinds first: a destructor that locks gets the mutex once its holder is gone.
  for (uint64_t seed = 0; seed < 50; ++seed) {
    Scheduler scheduler({.seed = seed});
    Mutex mutex;
    int released = 0;
    struct Guard {
      ~Guard() {
        MutexLock lock(mutex_);
        ++released_;
      }
      Mutex& mutex_;
      int& released_;
    };
    const ProcessId process = scheduler.new_process();
    for (int i = 0; i < 3; ++i) {
      scheduler.spawn(process, "victim", [&] {
        for (;;) {
          const Guard guard{mutex, released};
          MutexLock lock(mutex);
          sim_point();
        }
      });
    }
    EXPECT_EQ(scheduler.run({.steps = 20 + seed}), RunEnd::kSteps);
    const int before = released;
    scheduler.kill(process);
    EXPECT_GE(released, before);
  }
}

TEST(KillTest, AnExceptionInANoexceptFunctionAbandonsTheFiber) {
  Scheduler scheduler({.seed = 1});
  const ProcessId process = scheduler.new_process();
  Mutex mutex;
  scheduler.spawn(process, "victim", [&] {
    MutexLock lock(mutex);
    []() noexcept { sim_point(); }();
  });
  scheduler.spawn(process, "waiter", [&] { MutexLock lock(mutex); });
  EXPECT_EQ(scheduler.run({.steps = 3}), RunEnd::kSteps);
  scheduler.kill(process);
  EXPECT_EQ(scheduler.run({}), RunEnd::kDone);
}

TEST(KillTest, AnExceptionInFlightSurvivesASwitch) {
  Scheduler scheduler({.seed = 2});
  int caught = 0;
  for (int i = 0; i < 3; ++i) {
    scheduler.spawn(kHarness, "thrower", [&, i] {
      for (int round = 0; round < 20; ++round) {
        try {
          throw i;
        } catch (int value) {
          sim_point();
          caught += value == i ? 1 : 0;
          try {
            sim_point();
            throw;
          } catch (int again) {
            caught += again == i ? 1 : 0;
          }
        }
      }
    });
  }
  EXPECT_EQ(scheduler.run({}), RunEnd::kDone);
  EXPECT_EQ(caught, 120);
}

// ---- shared memory

TEST(SimMemoryTest, OutlivesAKillButNotThePower) {
  Scheduler scheduler({.seed = 1});
  SimMemory memory(scheduler);
  const ProcessId process = scheduler.new_process();
  scheduler.spawn(process, "victim", [&] {
    const auto shared = memory.create("map", 8192);
    ASSERT_TRUE(shared);
    ASSERT_TRUE((*shared)->allocate({0, 4096}));
    ASSERT_TRUE((*shared)->allocate_private({4096, 4096}));
    (*shared)->bytes()[7] = std::byte{1};
    (*shared)->bytes()[4099] = std::byte{1};
    struct Scribbler {
      ~Scribbler() { at = std::byte{9}; }
      std::byte& at;
    } const scribbler{(*shared)->bytes()[8]};
    scheduler.sleep(seconds(9));
  });
  EXPECT_EQ(scheduler.run({.time = seconds(1)}), RunEnd::kTime);
  scheduler.kill(process);
  const auto again = memory.open("map", 8192);
  ASSERT_TRUE(again);
  EXPECT_EQ((*again)->bytes()[7], std::byte{1});
  EXPECT_EQ((*again)->bytes()[8], std::byte{0}) << "written while it was unwound";
  EXPECT_EQ((*again)->bytes()[4099], std::byte{0}) << "private";
  EXPECT_EQ((*again)->next_allocated(0).value(), (ByteRange{0, 4096}));
  EXPECT_EQ((*again)->next_allocated(4096).value(), std::nullopt);
  EXPECT_EQ(memory.open("map", 4096).error().kind, ErrorKind::kCorrupt);
  memory.power_loss();
  EXPECT_EQ(memory.open("map", 8192).error().kind, ErrorKind::kNotFound);
}

// ---- guard

struct GuardedDisk {
  explicit GuardedDisk(uint64_t seed) : scheduler({.seed = seed}) {}
  Scheduler scheduler;
  SimDisk disk{scheduler, {}, SeededRandom(1)};
  std::vector<std::string> reports;
  IoGuard guard{[this](const std::string& what) { reports.push_back(what); }};
  std::unique_ptr<Directory> root = observe(disk.root(), guard);
};

TEST(GuardTest, ReportsOverlappingWrites) {
  size_t reports = 0;
  for (uint64_t seed = 0; seed < 20; ++seed) {
    GuardedDisk guarded(seed);
    auto file = std::move(guarded.root->open("image", OpenMode::kCreate)).value();
    const std::vector<std::byte> bytes(8192);
    for (const uint64_t offset : {0U, 4096U}) {
      guarded.scheduler.spawn(kHarness, "writer",
                              [&, offset] { ASSERT_TRUE(file->write(offset, bytes)); });
    }
    EXPECT_EQ(guarded.scheduler.run({}), RunEnd::kDone);
    reports += guarded.reports.size();
  }
  EXPECT_GT(reports, 5U);
}

TEST(GuardTest, ReportsUseAfterAFailedSync) {
  GuardedDisk guarded(1);
  NthFault fault({.operation = DiskOperation::kSync, .path_end = "image"});
  guarded.disk.set_faults(&fault);
  auto file = std::move(guarded.root->open("image", OpenMode::kCreate)).value();
  EXPECT_FALSE(file->sync());
  EXPECT_TRUE(guarded.reports.empty());
  EXPECT_FALSE(file->sync()) << "the first failed sync is final";
  EXPECT_EQ(guarded.reports.size(), 1U);
  EXPECT_TRUE(file->write(0, std::vector<std::byte>(512)));
  EXPECT_EQ(guarded.reports.size(), 2U);
}

TEST(PlantedTest, OneByName) {
  EXPECT_FALSE(planted("answer_before_confirm_durable"));
  plant("answer_before_confirm_durable");
  EXPECT_FALSE(planted_was_reached());
  EXPECT_FALSE(planted("single_map"));
  EXPECT_TRUE(planted("answer_before_confirm_durable"));
  EXPECT_TRUE(planted_was_reached());
  plant("");
}

}  // namespace
}  // namespace ckpt::sim
