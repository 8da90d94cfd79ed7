// SPDX-License-Identifier: Apache-2.0
#include "tests/sim/plan.h"

#include <array>

namespace ckpt::sim {
namespace {

constexpr uint64_t kRegionBytes = 64 * kBlockBytes;  // the least that a map can have

template <typename T, size_t N>
T one_of(SeededRandom& random, const std::array<T, N>& choices) {
  return choices[random.below(N)];
}

void draw_size(Plan& plan, SeededRandom& random) {
  plan.size_bytes = random.between(1, 3) * kRegionBytes + random.below(64) * kBlockBytes;
  if (random.one_in(2)) {
    // The last block is short.
    plan.size_bytes += random.between(1, 7) * 512;
  }
}

void draw_server(Plan& plan, SeededRandom& random) {
  VolumeOptions& volume = plan.server.volume;
  volume.start.region_bytes = kRegionBytes;
  volume.image_path = "/sim/image";
  volume.io = "simulated";
  volume.ship.batch_bytes = one_of<uint64_t>(random, std::array<uint64_t, 3>{8192, 65536, 4194304});
  volume.ship.batch_delay = std::chrono::milliseconds(one_of(random, std::array{1, 20, 100}));
  volume.ship.compression.codec = random.one_in(8) ? Codec::kZstd : Codec::kNone;
  volume.clients.multi_conn = plan.own_connections;
  if (random.one_in(4)) {
    volume.start.preserve = {.memory_bytes = 8192,
                             .total_bytes = random.one_in(2) ? 16384U : 1U << 20U};
  }
  if (random.one_in(4)) {
    plan.server.unapplied_bytes_max = 16384;
  }
  plan.server.pass_rest = std::chrono::milliseconds(one_of(random, std::array{0, 0, 50, 500}));
  plan.server.keeper_sleep = std::chrono::milliseconds(one_of(random, std::array{5, 500}));
}

void draw_load(Plan& plan, SeededRandom& random) {
  plan.lives = static_cast<uint32_t>(random.between(1, 4));
  plan.writers = static_cast<uint32_t>(random.between(1, 4));
  plan.requests = static_cast<uint32_t>(random.between(3, 25));
  plan.controls = static_cast<uint32_t>(random.between(1, 6));
  plan.hot_blocks = random.between(1, 16);
  plan.own_connections = random.one_in(3);
  plan.long_pauses = random.one_in(4);
  plan.short_timeouts = random.one_in(4);
  plan.rollback_one_in = one_of<uint32_t>(random, std::array<uint32_t, 3>{0, 4, 10});
}

// Many writers of a few bytes in the same few blocks, and one checkpoint after the other.
void draw_crowd(Plan& plan, SeededRandom random) {
  if (!random.one_in(4)) {
    return;
  }
  plan.writers = static_cast<uint32_t>(random.between(4, 8));
  plan.requests = static_cast<uint32_t>(random.between(10, 40));
  plan.controls = static_cast<uint32_t>(random.between(6, 20));
  plan.hot_blocks = 1;
  // At once, most often: a connection does one after the other.
  plan.own_connections = !random.one_in(4);
  plan.server.volume.clients.multi_conn = plan.own_connections;
  plan.crowded = true;
}

void draw_errors(Plan& plan, SeededRandom& random) {
  const auto rate = [&random](uint64_t seeds, uint64_t one_in) {
    return random.one_in(seeds) ? one_in : 0;
  };
  plan.image_write_error_one_in = rate(3, 12);
  plan.image_read_error_one_in = rate(12, 30);
  plan.state_error_one_in = rate(8, 20);
  plan.store_error_one_in = rate(6, 30);
  plan.image_sync_error_one_in = rate(6, 4);
  // What a failed sync lost is found only when nothing else covers it any more.
  plan.long_pauses = plan.long_pauses || (plan.image_sync_error_one_in != 0 && random.one_in(2));
  plan.memory_full_one_in = rate(10, 3);
  plan.no_space = random.one_in(10);
  plan.server.link_lost_one_in = rate(4, 12);
}

void draw_faults(Plan& plan, SeededRandom& random) {
  plan.kills = random.one_in(2);
  plan.power_losses = !plan.kills || random.one_in(2);
  plan.tampering = random.one_in(6);
  plan.corruption = random.one_in(10);
  if (random.one_in(2)) {
    draw_errors(plan, random);
  }
}

void draw_remote(Plan& plan, bool has_faults, SeededRandom random) {
  plan.server.remote = random.one_in(2);
  if (!plan.server.remote) {
    return;
  }
  plan.server.link_lost_one_in = 0;
  if (has_faults && !random.one_in(5)) {
    plan.link_break_one_in = one_of<uint64_t>(random, std::array<uint64_t, 3>{0, 1, 3});
    plan.backup_kills = random.one_in(3);
    plan.backup_power_losses = random.one_in(3);
    plan.backup_no_space = random.one_in(10);
  }
}

// Short sleeps are many steps in a long pause, and in the time after which a silent link counts as
// broken.
void slow_down(Plan& plan) {
  if (plan.long_pauses || plan.server.remote) {
    const std::chrono::milliseconds shortest(plan.long_pauses ? 500 : 100);
    VolumeOptions& volume = plan.server.volume;
    volume.ship.batch_delay = std::max(volume.ship.batch_delay, shortest);
    plan.server.keeper_sleep = std::max<SteadyTime>(plan.server.keeper_sleep, shortest);
  }
}

}  // namespace

Plan draw_plan(uint64_t seed) {
  const SeededRandom root(seed);
  SeededRandom random = root.stream("plan");
  Plan plan;
  plan.seed = seed;
  draw_size(plan, random);
  draw_load(plan, random);
  draw_server(plan, random);
  draw_crowd(plan, root.stream("crowd"));
  SeededRandom exports = root.stream("exports");
  plan.exports = exports.one_in(3) ? static_cast<uint32_t>(exports.between(1, 4)) : 0;
  plan.attachments = root.stream("attachments").one_in(2);
  plan.scheduler.seed = seed;
  plan.scheduler.clock_is_set_back = root.stream("clock").one_in(3);
  plan.scheduler.switch_one_in = one_of<uint32_t>(random, std::array<uint32_t, 4>{1, 2, 5, 20});
  const bool has_faults = !random.one_in(5);
  if (has_faults) {
    draw_faults(plan, random);
  }
  // (What others do to the image is another story.)
  plan.old_copies = has_faults && !plan.tampering && root.stream("copies").one_in(2);
  draw_remote(plan, has_faults, root.stream("remote"));
  // (And so is what happens to one of two copies.)
  plan.fail_overs = plan.server.remote && !plan.tampering && !plan.old_copies && !plan.crowded &&
                    root.stream("fail-overs").one_in(2);
  SeededRandom relays = root.stream("relay");
  plan.relay = plan.server.remote && !plan.crowded && relays.one_in(2);
  plan.few_wait = relays.one_in(2);
  slow_down(plan);
  return plan;
}

Plan script_plan(const std::vector<Act>& script, uint64_t crash_at, bool power) {
  Plan plan;
  plan.seed = 1;
  plan.size_bytes = kRegionBytes + 512;
  VolumeOptions& volume = plan.server.volume;
  volume.start.region_bytes = kRegionBytes;
  volume.image_path = "/sim/image";
  volume.io = "simulated";
  volume.ship.compression.codec = Codec::kNone;
  plan.scheduler.seed = 1;
  plan.kills = !power;
  plan.power_losses = power;
  plan.script = script;
  plan.crash_at = crash_at;
  return plan;
}

std::string describe(const Plan& plan) {
  if (plan.is_scripted()) {
    constexpr std::array<const char*, kActs> kNames{"write",      "write over it", "flush",
                                                    "checkpoint", "roll back",     "reconnect"};
    std::string text = plan.kills ? "killed" : "power lost";
    text += " at step " + std::to_string(plan.crash_at) + " of:";
    for (const Act act : plan.script) {
      text += std::string(" ") + kNames[static_cast<size_t>(act)] + ";";
    }
    return text;
  }
  std::string text = std::to_string(plan.size_bytes) + " bytes, " + std::to_string(plan.lives) +
                     " lives, " + std::to_string(plan.writers) + " writers of " +
                     std::to_string(plan.requests) + " requests, " + std::to_string(plan.controls) +
                     " commands";
  const auto say = [&text](const char* what, uint64_t value) {
    if (value != 0) {
      text += std::string(", ") + what + (value > 1 ? " 1/" + std::to_string(value) : "");
    }
  };
  say("own connections", plan.own_connections ? 1 : 0);
  say("kills", plan.kills ? 1 : 0);
  say("power losses", plan.power_losses ? 1 : 0);
  say("tampering", plan.tampering ? 1 : 0);
  say("old copies", plan.old_copies ? 1 : 0);
  say("fail-overs", plan.fail_overs ? 1 : 0);
  say("corruption", plan.corruption ? 1 : 0);
  say("long pauses", plan.long_pauses ? 1 : 0);
  say("image write errors", plan.image_write_error_one_in);
  say("image read errors", plan.image_read_error_one_in);
  say("image sync errors", plan.image_sync_error_one_in);
  say("state errors", plan.state_error_one_in);
  say("store errors", plan.store_error_one_in);
  say("link losses", plan.server.link_lost_one_in);
  say("memory full", plan.memory_full_one_in);
  say("no space", plan.no_space ? 1 : 0);
  say("short timeouts", plan.short_timeouts ? 1 : 0);
  say("rollbacks", plan.rollback_one_in);
  say("attachments", plan.attachments ? 1 : 0);
  say("crowded", plan.crowded ? 1 : 0);
  say("clock set back", plan.scheduler.clock_is_set_back ? 1 : 0);
  say("exports", plan.exports > 0 ? 1 : 0);
  say("remote", plan.server.remote ? 1 : 0);
  say("link breaks", plan.link_break_one_in);
  say("relay", plan.relay ? 1 : 0);
  say("back-up's kills", plan.backup_kills ? 1 : 0);
  say("back-up's power losses", plan.backup_power_losses ? 1 : 0);
  say("back-up's full disk", plan.backup_no_space ? 1 : 0);
  return text;
}

}  // namespace ckpt::sim
