// SPDX-License-Identifier: Apache-2.0
// The tmpfs of a simulated machine: shared memory that outlives processes, but not the power.
//
// A kill freezes it: what a dying process still writes while it is unwound is undone.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "common/file.h"
#include "tests/sim/faults.h"
#include "tests/sim/scheduler.h"

namespace ckpt::sim {

class SimMemory final : public SharedMemoryStore, private ProcessListener {
 public:
  explicit SimMemory(Scheduler& scheduler);
  ~SimMemory() override;
  SimMemory(const SimMemory&) = delete;
  SimMemory& operator=(const SimMemory&) = delete;

  Result<std::unique_ptr<SharedMemory>> create(const std::string& name, uint64_t bytes) override;
  Result<std::unique_ptr<SharedMemory>> open(const std::string& name, uint64_t bytes) override;
  Result<> remove(const std::string& name) override;

  // Every process must have been killed.
  void power_loss() { regions_.clear(); }
  // Null: nothing fails.
  void set_faults(FaultPolicy* faults) { faults_ = faults; }
  // For the oracle; null if there is none.
  [[nodiscard]] const std::byte* peek(const std::string& name) const;
  [[nodiscard]] std::vector<std::string> names() const;

 private:
  friend class SimSharedMemory;

  enum class Backing : uint8_t { kNone, kShared, kPrivate };

  struct Region {
    std::string name;
    std::vector<std::byte> bytes;
    std::vector<Backing> pages;
    std::vector<ProcessId> owners;  // of private pages
    std::vector<std::byte> frozen;  // as it was when a process was killed, until that is gone
  };

  Result<> enter(const char* label);
  void on_kill(ProcessId process) override;
  void on_killed(ProcessId process) override;
  static void drop_private(Region& region, ProcessId process);

  Scheduler& scheduler_;  // outlives this
  FaultPolicy* faults_ = nullptr;
  std::map<std::string, std::shared_ptr<Region>> regions_;  // shared with handles
};

}  // namespace ckpt::sim
