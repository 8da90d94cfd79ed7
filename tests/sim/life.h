// SPDX-License-Identifier: Apache-2.0
// One life of the server: it starts, serves a random load, and ends by itself or is killed.
#pragma once

#include <memory>
#include <string>

#include "tests/sim/oracle.h"
#include "tests/sim/plan.h"
#include "tests/sim/probes.h"
#include "tests/sim/server.h"

namespace ckpt::sim {

// What lives share, one after the other.
struct History {
  Oracle oracle;
  Uuid volume;
  Uuid timeline;                    // of the volume, when it was last seen
  uint64_t checkpoints = 0;         // asked for so far: their names
  bool image_syncs_failed = false;  // and what they lost may be lost yet
  bool image_suspect = false;       // no checkpoint before a rollback
  uint64_t last_act_at = 0;         // of a script: the step at which it began
  uint64_t script_ended_at = 0;     // and the one at which all was quiet again
  Probes& probes;
};

struct LifeOptions {
  const Plan& plan;
  bool errors = false;       // what needs the disk or the back-up may fail
  bool disk_errors = false;  // what clients ask for, too
  bool last = false;         // nothing may
  bool crashes = false;      // it will be killed, if it lives long enough
  uint64_t number = 0;
};

// Lifetime: until its process was killed.
class Life {
 public:
  Life(Machine& machine, History& history, const LifeOptions& options);
  Life(const Life&) = delete;
  Life& operator=(const Life&) = delete;

  // The main fiber.
  void run();
  [[nodiscard]] bool opened() const { return server_ != nullptr; }
  [[nodiscard]] bool ended() const { return ended_; }
  [[nodiscard]] bool closed() const { return closed_; }

 private:
  using ClientPtr = std::shared_ptr<Client>;  // the gate's, too

  [[nodiscard]] bool open();
  void find_rollback();
  void serve();
  void settle();
  void start_worker(const std::string& name, std::function<void()> work);
  void wait_for_workers();

  // ---- writers
  void write_requests(uint32_t writer);
  void one_request(uint32_t writer, SeededRandom& random);
  RequestPtr begin_change(SectorRange range, uint64_t kind);
  [[nodiscard]] SectorRange changed_range() const;
  void do_change(Client& client, SeededRandom& random, SectorRange range, uint64_t kind);
  void do_flush(Client& client);
  void do_read(Client& client, SeededRandom& random);
  [[nodiscard]] SectorRange draw_range(SeededRandom& random) const;
  ClientPtr client_of(uint32_t writer);
  void connect();
  void disconnect();
  void enter_request();
  void leave_request();
  void pause_requests();
  void resume_requests();

  // ---- a history
  void run_script();
  void do_act(Act act, SeededRandom& random);

  // ---- control
  void control();
  void check_status();
  bool checkpoint(bool must);
  bool check_backup();
  void check_attachments(const CheckpointInfo& checkpoint);
  void check_verify();
  void export_disk();
  void one_export(const SeededRandom& random);
  void roll_back();
  bool after_roll_back(const Result<RollbackOutcome>& outcome, bool quiet);
  void check_restored();
  void expect_restored(const std::string& wrong);
  void check_settled();

  // What is wrong, if it is not empty.
  void report(const std::string& what);
  void expect(bool condition, const std::string& what) {
    if (!condition) {
      report(what);
    }
  }
  [[nodiscard]] bool may_void() const;
  [[nodiscard]] std::vector<Version> primary() const;
  // Where a fiber of a killed process ends: nothing after a call of the product counts any more.
  void end_if_killed() const;

  Machine& machine_;
  History& history_;
  LifeOptions options_;
  const Plan& plan_;
  SeededRandom random_;
  bool quiet_;    // few requests, no checkpoints
  bool undoing_;  // writes that make the disk again what it was at the last checkpoint
  std::unique_ptr<Server> server_;
  Mutex mutex_;
  CondVar changed_;
  uint32_t workers_ CKPT_GUARDED_BY(mutex_) = 0;
  uint32_t requests_ CKPT_GUARDED_BY(mutex_) = 0;
  bool paused_ CKPT_GUARDED_BY(mutex_) = false;
  std::vector<ClientPtr> clients_;
  bool stuck_ = false;  // a rollback stopped half-way: nothing more can be done in this life
  bool ended_ = false;
  bool closed_ = false;
};

}  // namespace ckpt::sim
