// SPDX-License-Identifier: Apache-2.0
// Between two lives: the back-up becomes the primary, and the primary its back-up.
#include "tests/sim/fail_over.h"
#include "tests/sim/world.h"

namespace ckpt::sim {
namespace {

constexpr uint64_t kDeathStepsMax = 200;  // about as many as a promotion has
constexpr uint64_t kSwitchTriesMax = 100;

// By links that break, and a back-up that waits for a primary which is dead.
bool may_be_repeated(ErrorKind kind) {
  return kind == ErrorKind::kVoid || kind == ErrorKind::kHalfway || kind == ErrorKind::kTimeout ||
         kind == ErrorKind::kUnreachable || kind == ErrorKind::kBusy;
}

}  // namespace

// The primary's machine is lost, and comes back later, or gives its role up: its back-up becomes
// the disk, and what it has the back-up. Whoever does it may die on the way, and does it again.
void World::fail_over() {
  const History& seen = history_;
  const auto has_checkpoint = [&] { return seen.oracle.last_answered() > 0; };
  if (seen.oracle.rolling_back() || is_behind() || seen.image_suspect || seen.image_syncs_failed ||
      !has_checkpoint()) {
    return;
  }
  bool is_untouched = false;
  if (random_.one_in(3) && !give_up(is_untouched)) {
    return;
  }
  crash_backupd(random_.one_in(2) ? Crash::kKill : Crash::kPower);
  std::optional<StoreRecord> promoted;
  const bool is_promoted = in_mortal_process(
      "promote",
      [&]() -> Result<> {
        CKPT_ASSIGN(promoted,
                    promote_store(machine_, store_folder(), history_.volume, plan_.server));
        return {};
      },
      [this] { lose_promoter(); });
  if (is_promoted) {
    const std::string image = store_folder() + "/backup.img";
    const bool is_same = backup_disk_.cached(image).value() == disk_.cached(kImageName).value();
    report(is_same || !is_untouched ? "" : "O5: a planned change of roles has lost something");
    return_old_primary();
  }
  const auto rejoin = [this]() -> Result<> {
    CKPT_TRY(disk_.root()->subdirectory(kDraftName, true));
    disk_.put_back(kDraftName, {});  // what one that died has left of it
    return draft_store(machine_, plan_.server);
  };
  if (is_promoted && in_mortal_process("rejoin", rejoin, [this] { lose_primary(); })) {
    change_machines(*promoted);
    (void)in_mortal_process(
        "make the state", [&] { return make_state(machine_, *promoted, plan_.server); },
        [this] { lose_new_primary(); });
  }
  start_backupd();
}

// The primary or the link may die at any time: it is asked then what became of it. is_untouched: no
// crash has taken anything from the primary since.
bool World::give_up(bool& is_untouched) {
  is_untouched = true;
  if (backup_process_ == kHarness) {
    start_backupd();
  }
  network_.set_breaking(true);
  for (uint64_t tries = 0; tries < kSwitchTriesMax && !scheduler_.failed(); ++tries) {
    const bool dies = plan_.has_crashes() && random_.one_in(3);
    std::optional<Result<>> done;
    const ProcessId process = scheduler_.new_process();
    scheduler_.spawn(process, "switch", [&] { done.emplace(ask_to_give_up()); });
    scheduler_.run({.steps = dies ? draw_steps() : kStepsMax});
    scheduler_.kill(process);
    guard_.restart();
    if (done && *done) {
      history_.probes.hit("change of roles");
      network_.set_breaking(false);
      return true;
    }
    if (done) {
      report(may_be_repeated(done->error().kind) ? "" : "switch: " + done->error().message());
      scheduler_.advance(std::chrono::seconds(5));
    } else if (!dies) {
      report("switch: no end");
    } else {
      history_.probes.hit("died while it gave its role up");
      is_untouched = false;
      lose_primary();
    }
  }
  report("switch: again and again");
  return false;
}

// What becomes of its checkpoint is open, if nobody is left to say.
Result<> World::ask_to_give_up() {
  machine_.network.wait_for_listener();
  const std::string name = "c" + std::to_string(++history_.checkpoints);
  history_.oracle.begin_checkpoint(name);
  return give_up_role(machine_, plan_.server, name, [&](const Result<CheckpointOutcome>& made) {
    if (made) {
      report(history_.oracle.end_checkpoint(name, made->checkpoint.id.number.value));
    } else {
      const bool is_unknown = made.error().kind == ErrorKind::kTimeout;
      history_.oracle.end_checkpoint(name, is_unknown ? Existence::kUnknown : Existence::kVoid);
    }
  });
}

// It learns that it is no longer the disk, and is not served.
void World::return_old_primary() {
  start_backupd();
  (void)in_process("old primary", [this]() -> Result<> {
    machine_.network.wait_for_listener();
    const auto server = Server::open(machine_, plan_.server);
    if (server) {
      return fail(ErrorKind::kInvalid, "it is served, though its back-up was promoted");
    }
    if (server.error().kind != ErrorKind::kFenced) {
      return Unexpected(server.error());
    }
    CKPT_ASSIGN(const bool knows, is_superseded(machine_));
    return knows ? Result<>() : fail(ErrorKind::kInvalid, "it has no record of the promotion");
  });
  crash_backupd(Crash::kKill);
}

// Each disk gets the other one's content, so that the primary's is the first again.
void World::change_machines(const StoreRecord& promoted) {
  const std::string image = store_folder() + "/backup.img";
  const std::vector<std::byte> content = backup_disk_.cached(image).value();
  const CheckpointInfo& last = *promoted.last;
  report(history_.oracle.check_backup(last.name, last.id.number.value, read_versions(0, content)));
  report(backup_disk_.is_clean(image) ? "" : "the promoted image is not durable");
  DirectoryCopy store = disk_.copy(kDraftName);
  store.files["backup.img"] = disk_.cached(kImageName).value();
  disk_.replace(kImageName, content);
  disk_.put_back(kStateName, {});
  disk_.put_back(kDraftName, {});
  backup_disk_.put_back(store_folder(), store);
  lose_power();  // another machine, which has seen nothing of the volume
  history_.oracle.begin_rollback();
  history_.oracle.end_rollback();
  history_.oracle.lose_backup();
  history_.timeline = last.id.timeline;
  scheduler_.event("fail-over", "", last.id.number.value);
  history_.probes.hit("fail-over");
}

// The back-up's machine, while nothing else runs there.
void World::lose_promoter() {
  if (random_.one_in(2)) {
    backup_disk_.power_loss();
  } else {
    backup_disk_.land_some_zombies();
    backup_disk_.land_zombies();
  }
  backup_guard_.restart();
}

void World::lose_primary() { crash(draw_crash()); }

void World::lose_new_primary() {
  if (random_.one_in(2)) {
    lose_power();
  } else {
    disk_.land_some_zombies();
    disk_.land_zombies();
  }
}

bool World::in_mortal_process(const char* name, const std::function<Result<>()>& act,
                              const std::function<void()>& die) {
  while (plan_.has_crashes() && !scheduler_.failed() && random_.one_in(2)) {
    std::optional<Result<>> done;
    const ProcessId process = scheduler_.new_process();
    scheduler_.spawn(process, name, [&] { done.emplace(act()); });
    scheduler_.run({.steps = random_.between(1, kDeathStepsMax)});
    scheduler_.kill(process);
    guard_.restart();
    report(!done || *done ? "" : std::string(name) + ": " + done->error().message());
    history_.probes.hit("died while it changed roles", done ? 0 : 1);
    scheduler_.event("dies", name);
    die();
  }
  return in_process(name, act);
}

}  // namespace ckpt::sim
