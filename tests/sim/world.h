// SPDX-License-Identifier: Apache-2.0
// One seed: a machine, the lives of a server on it, and what happens in between.
#pragma once

#include "tests/sim/further.h"
#include "tests/sim/life.h"
#include "tests/sim/sim_backupd.h"
#include "tests/sim/volume_guard.h"

namespace ckpt::sim {

// Lifetime: one at a time (the scheduler's rule).
class World {
 public:
  World(const Plan& plan, Probes& probes);
  ~World();
  World(const World&) = delete;
  World& operator=(const World&) = delete;

  // False: something promised was not kept; failure() says what, and what happened last.
  bool run();
  [[nodiscard]] std::string failure() const;
  [[nodiscard]] uint64_t trace_hash() const { return scheduler_.trace_hash(); }
  [[nodiscard]] uint64_t steps() const { return scheduler_.steps(); }
  // Of a history: when its last act began, and when all was quiet again.
  [[nodiscard]] uint64_t last_act_at() const { return history_.last_act_at; }
  [[nodiscard]] uint64_t script_ended_at() const { return history_.script_ended_at; }

 private:
  enum class Crash { kNone, kKill, kPower };
  static constexpr uint64_t kStepsMax = 20'000'000;  // more in one life: it does not end

  struct Flip {
    std::string path;
    uint64_t offset = 0;
    std::byte before{};
  };

  void make_image();
  void live(bool last);
  void run_life(Life& life, ProcessId process, bool crashes, bool last);
  RunEnd run_primary(uint64_t steps, bool crashes);
  void start_backupd();
  void crash_backupd(Crash kind);
  void renew_backupd();
  void switch_errors(bool on);
  void switch_backup_errors(bool on);
  void end_life(ProcessId process);
  void crash(Crash kind);
  void lose_power();
  void tamper();
  void look();
  void take_copy(const Probe& found);
  void put_copy_back();
  void fail_over();
  void return_old_primary();
  void change_machines(const StoreRecord& promoted);
  bool give_up(bool& is_untouched);
  Result<> ask_to_give_up();
  void lose_promoter();
  void lose_primary();
  void lose_new_primary();
  // The same act, begun as often as whoever does it dies on the way.
  bool in_mortal_process(const char* name, const std::function<Result<>()>& act,
                         const std::function<void()>& die);
  std::optional<FurtherStore> look_further(bool power);
  void check_further();
  bool is_as_told(const FurtherStore& found);
  void change_store(const FurtherStore& found);
  void expect_further_caught_up();
  bool in_process(const char* name, const std::function<Result<>()>& act);
  void put_image_back();
  [[nodiscard]] bool is_behind() const;
  void check_changed(const Probe& found);
  std::optional<Flip> flip_a_bit();
  bool put_byte(const Flip& flip, std::byte value);
  SimDisk& store_disk();
  [[nodiscard]] std::string store_folder() const;
  [[nodiscard]] Crash draw_crash();
  [[nodiscard]] uint64_t draw_steps();
  void report(const std::string& what) {
    if (!what.empty()) {
      scheduler_.report_failure(what);
    }
  }

  const Plan& plan_;
  SeededRandom random_;
  Scheduler scheduler_;
  SimDisk disk_;
  SimMemory memory_;
  RandomFaults faults_;
  VolumeGuard guard_;
  SimNetwork network_;
  SimDisk backup_disk_;
  RandomFaults backup_faults_;
  StoreGuard backup_guard_;
  Machine machine_;
  BackupMachine backup_machine_;
  std::unique_ptr<Further> further_;     // nothing: the plan has no relay
  std::unique_ptr<SimBackupd> backupd_;  // the last one, dead or alive
  ProcessId backup_process_ = kHarness;  // kHarness: none runs
  History history_;
  uint64_t boots_ = 0;
  uint64_t lives_ = 0;
  bool volume_exists_ = false;
  bool sync_failed_ = false;  // in this life
  // Of the store, and what it holds.
  struct OldCopy {
    DirectoryCopy content;
    uint64_t number = 0;
    std::vector<Version> backup;
  };
  std::optional<std::vector<std::byte>> image_copy_;
  std::optional<OldCopy> copy_;
  bool has_closed_ = false;  // the last life, with all on record
  uint64_t behind_at_ = 0;   // it was put back, at that checkpoint
  // Somebody wrote to the image, and no start has come to its end since.
  bool tampered_ = false;
};

}  // namespace ckpt::sim
