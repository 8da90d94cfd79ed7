// SPDX-License-Identifier: Apache-2.0
// What one seed does: drawn once, at its beginning.
#pragma once

#include <string>
#include <vector>

#include "tests/sim/server.h"

namespace ckpt::sim {

// What the one client of a short history does, one after the other.
enum class Act { kWrite, kOverlap, kFlush, kCheckpoint, kRollBack, kReconnect };
inline constexpr size_t kActs = 6;

struct Plan {
  uint64_t seed = 0;
  uint64_t size_bytes = 0;
  ServerOptions server;
  SchedulerOptions scheduler;

  // The load of each life of the server.
  uint32_t lives = 1;  // before the last, which has no faults
  uint32_t writers = 1;
  uint32_t requests = 20;   // of each writer, at most
  uint32_t controls = 5;    // checkpoints, rollbacks, verifications
  uint32_t exports = 0;     // beside them
  uint64_t hot_blocks = 4;  // most requests go there
  bool crowded = false;     // they are small, and follow each other closely
  bool own_connections = false;
  bool long_pauses = false;  // so that idle regions are unmarked
  bool short_timeouts = false;
  bool attachments = false;  // checkpoints have some
  uint32_t rollback_one_in = 6;

  // Faults; none at all in one seed of five.
  bool kills = false;
  bool power_losses = false;
  bool tampering = false;   // other programs write to the image while it is not served
  bool old_copies = false;  // the store is put back from an older copy of it
  bool fail_overs = false;  // the back-up becomes the disk, and what was that the back-up
  bool corruption = false;  // bits of the journal flip, at rest
  uint64_t image_write_error_one_in = 0;
  uint64_t image_read_error_one_in = 0;
  uint64_t state_error_one_in = 0;  // writes and syncs of the volume's own files
  uint64_t store_error_one_in = 0;  // writes and syncs of the store's
  uint64_t image_sync_error_one_in = 0;
  uint64_t memory_full_one_in = 0;
  bool no_space = false;

  // A back-up on another machine: its own faults, and the link's. (server.remote says that there is
  // one.)
  uint64_t link_break_one_in = 0;  // of connections
  bool backup_kills = false;
  bool backup_power_losses = false;
  bool backup_no_space = false;

  // A third machine, to which the second passes its checkpoints on; it may be killed, and lose its
  // power, when the second may.
  bool relay = false;
  bool few_wait = false;  // of what is about to change, until the relay begins again

  // A history, instead of a random load, and the step at which the first life ends by a crash.
  std::vector<Act> script;
  uint64_t crash_at = 0;

  [[nodiscard]] bool is_scripted() const { return !script.empty(); }
  [[nodiscard]] bool has_crashes() const { return kills || power_losses; }
  [[nodiscard]] bool has_errors() const {
    return image_write_error_one_in + image_read_error_one_in + state_error_one_in +
                   store_error_one_in + image_sync_error_one_in + memory_full_one_in !=
               0 ||
           no_space;
  }
  // What happens to a remote back-up while the primary lives.
  [[nodiscard]] bool has_backup_faults() const {
    return link_break_one_in != 0 || has_backup_crashes() || backup_no_space;
  }
  [[nodiscard]] bool has_backup_crashes() const { return backup_kills || backup_power_losses; }
  // A sync may fail: what was lost then is lost at once, by a loss of power, since no later sync
  // tells.
  [[nodiscard]] bool syncs_fail() const {
    return image_sync_error_one_in + state_error_one_in + store_error_one_in != 0;
  }
};

Plan draw_plan(uint64_t seed);
// Of a history, and a crash: a loss of power or a kill.
Plan script_plan(const std::vector<Act>& script, uint64_t crash_at, bool power);
// One line.
std::string describe(const Plan& plan);

}  // namespace ckpt::sim
