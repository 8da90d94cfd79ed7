// SPDX-License-Identifier: Apache-2.0
// A third machine: a further backupd, to which the back-up's passes its checkpoints on.
#pragma once

#include <memory>
#include <optional>

#include "tests/sim/oracle.h"
#include "tests/sim/plan.h"
#include "tests/sim/sim_backupd.h"
#include "tests/sim/store_guard.h"

namespace ckpt::sim {

// What its store holds, at rest.
struct FurtherStore {
  CheckpointInfo last;
  uint64_t incarnation = 0;
  std::vector<std::byte> content;
};

// Lifetime: from outside of fibers.
class Further {
 public:
  Further(Scheduler& scheduler, const Plan& plan, const SeededRandom& random,
          IoGuard::Report report);
  ~Further() { crash(false); }
  Further(const Further&) = delete;
  Further& operator=(const Further&) = delete;

  void start();
  // It is killed, or loses its power.
  void crash(bool power);
  // From here on the way there breaks, or does not.
  void set_breaking(bool breaking) { network_.set_breaking(breaking); }
  SimNetwork& network() { return network_; }
  SimDisk& disk() { return disk_; }
  // In a fiber, while nobody has it open. Nothing: it has no checkpoint of that volume.
  Result<std::optional<FurtherStore>> look(const Uuid& volume);

 private:
  Scheduler& scheduler_;
  const Plan& plan_;
  SimDisk disk_;
  StoreGuard guard_;
  SimNetwork network_;
  BackupMachine machine_;
  std::unique_ptr<SimBackupd> backupd_;
  ProcessId process_ = kHarness;
};

}  // namespace ckpt::sim
