// SPDX-License-Identifier: Apache-2.0
// sim --seed S --shrink: a simpler run that fails as well.
// sim --histories N: all histories of so many acts, at most, with a crash at every step.
// sim --seeds N [--seed S] [--planted NAME] [--events N] [--verbose]: runs seeds until one fails.
#include <cstdio>
#include <cstdlib>
#include <ctime>

#include "tests/sim/planted.h"
#include "tests/sim/shrink.h"
#include "tests/sim/world.h"

namespace ckpt::sim {
namespace {

// One seed of so many runs twice, and must be the same run.
constexpr uint64_t kTwiceOneIn = 64;

struct Arguments {
  uint64_t seeds = 1;
  uint64_t first = 1;
  uint64_t histories = 0;  // acts of the longest; 0: seeds instead
  std::string planted;
  uint64_t events = 200;  // of a failure, the last
  bool verbose = false;
  bool shrinks = false;
};

[[noreturn]] void usage() {
  std::fputs(
      "usage: sim [--seeds N] [--seed S] [--histories N] [--planted NAME] [--events N] [--verbose] "
      "[--shrink]\n",
      stderr);
  std::exit(2);
}

Arguments parse(int argc, char** argv) {
  Arguments arguments;
  for (int i = 1; i < argc; ++i) {
    const std::string name = argv[i];
    if (name == "--verbose" || name == "--shrink") {
      (name == "--verbose" ? arguments.verbose : arguments.shrinks) = true;
      continue;
    }
    if (i + 1 >= argc) {
      usage();
    }
    const char* const value = argv[++i];
    if (name == "--seeds") {
      arguments.seeds = std::strtoull(value, nullptr, 10);
    } else if (name == "--seed") {
      arguments.first = std::strtoull(value, nullptr, 10);
    } else if (name == "--histories") {
      arguments.histories = std::strtoull(value, nullptr, 10);
    } else if (name == "--planted") {
      arguments.planted = value;
    } else if (name == "--events") {
      arguments.events = std::strtoull(value, nullptr, 10);
    } else {
      usage();
    }
  }
  return arguments;
}

struct Run {
  bool good = false;
  uint64_t hash = 0;
  uint64_t steps = 0;
};

Run run_seed(uint64_t seed, uint64_t events, Probes& probes) {
  Plan plan = draw_plan(seed);
  plan.scheduler.events_kept = events;
  World world(plan, probes);
  Run run;
  run.good = world.run();
  run.hash = world.trace_hash();
  run.steps = world.steps();
  if (!run.good) {
    std::printf("%s", world.failure().c_str());
  }
  return run;
}

bool run_one(uint64_t seed, const Arguments& arguments, Probes& probes) {
  const Run run = run_seed(seed, arguments.events, probes);
  if (arguments.verbose) {
    std::printf("seed %llu: %llu steps, hash %016llx; %s\n", static_cast<unsigned long long>(seed),
                static_cast<unsigned long long>(run.steps),
                static_cast<unsigned long long>(run.hash), describe(draw_plan(seed)).c_str());
  }
  if (run.good && seed % kTwiceOneIn == 0) {
    Probes again;
    if (run_seed(seed, arguments.events, again).hash != run.hash) {
      std::printf("seed %llu: two runs differ\n", static_cast<unsigned long long>(seed));
      return false;
    }
  }
  return run.good;
}

int run_all(const Arguments& arguments) {
  Probes probes;
  const std::clock_t began = std::clock();
  for (uint64_t i = 0; i < arguments.seeds; ++i) {
    if (!run_one(arguments.first + i, arguments, probes)) {
      std::printf("%llu seeds, 1 failure\n", static_cast<unsigned long long>(i + 1));
      return 1;
    }
  }
  // Of processor time: the machine may have other things to do.
  const double time = static_cast<double>(std::clock() - began) / CLOCKS_PER_SEC;
  if (arguments.verbose || arguments.seeds >= 1000) {
    for (const auto& [name, count] : probes.counts()) {
      std::printf("%10llu  %s\n", static_cast<unsigned long long>(count), name.c_str());
    }
  }
  std::printf("%llu seeds, 0 failures, %.0f seeds/s\n",
              static_cast<unsigned long long>(arguments.seeds),
              static_cast<double>(arguments.seeds) / time);
  if (!arguments.planted.empty() && !planted_was_reached()) {
    std::printf("the planted bug %s was never reached\n", arguments.planted.c_str());
    return 2;
  }
  return 0;
}

// 1: it fails, and so does the simpler one, which is shown; 0: it does not.
int shrink_seed(const Arguments& arguments) {
  uint64_t runs = 0;
  const auto fails = [&](const Plan& plan) {
    ++runs;
    Probes probes;
    World world(plan, probes);
    return !world.run();
  };
  Plan plan = draw_plan(arguments.first);
  if (!fails(plan)) {
    std::printf("seed %llu: no failure\n", static_cast<unsigned long long>(arguments.first));
    return 0;
  }
  plan = shrink(plan, fails);
  plan.scheduler.events_kept = arguments.events;
  Probes probes;
  World world(plan, probes);
  (void)world.run();
  std::printf("%safter %llu runs\n", world.failure().c_str(),
              static_cast<unsigned long long>(runs));
  return 1;
}

// ---- short histories

struct HistoryRun {
  bool good = false;
  uint64_t last_act_at = 0;
  uint64_t ended_at = 0;
};

HistoryRun run_history(const std::vector<Act>& script, uint64_t crash_at, bool power) {
  const Plan plan = script_plan(script, crash_at, power);
  Probes probes;
  World world(plan, probes);
  HistoryRun run{world.run(), world.last_act_at(), world.script_ended_at()};
  if (!run.good) {
    std::printf("%s", world.failure().c_str());
  }
  return run;
}

// Up to its last act it is a shorter one, of which every crash has been tried. False: one fails.
bool run_crashes(const std::vector<Act>& script, uint64_t& crashes) {
  constexpr uint64_t kNever = 10'000'000;
  const HistoryRun whole = run_history(script, kNever, false);
  for (uint64_t step = script.size() == 1 ? 1 : whole.last_act_at; step < whole.ended_at; ++step) {
    for (const bool power : {false, true}) {
      ++crashes;
      if (!run_history(script, step, power).good) {
        return false;
      }
    }
  }
  return whole.good;
}

// The next one of as many acts; false: that was the last.
bool next_history(std::vector<Act>& script) {
  for (Act& act : script) {
    const size_t next = static_cast<size_t>(act) + 1;
    act = static_cast<Act>(next % kActs);
    if (next < kActs) {
      return true;
    }
  }
  return false;
}

int run_histories(uint64_t longest) {
  uint64_t histories = 0;
  uint64_t crashes = 0;
  for (uint64_t acts = 1; acts <= longest; ++acts) {
    std::vector<Act> script(acts, Act::kWrite);
    do {
      ++histories;
      if (!run_crashes(script, crashes)) {
        return 1;
      }
    } while (next_history(script));
  }
  std::printf("%llu histories, %llu crashes, 0 failures\n",
              static_cast<unsigned long long>(histories), static_cast<unsigned long long>(crashes));
  return 0;
}

}  // namespace
}  // namespace ckpt::sim

int main(int argc, char** argv) {
  const ckpt::sim::Arguments arguments = ckpt::sim::parse(argc, argv);
  ckpt::sim::plant(arguments.planted);
  if (arguments.shrinks) {
    return ckpt::sim::shrink_seed(arguments);
  }
  return arguments.histories > 0 ? ckpt::sim::run_histories(arguments.histories)
                                 : ckpt::sim::run_all(arguments);
}
