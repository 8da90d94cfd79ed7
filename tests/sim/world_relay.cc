// SPDX-License-Identifier: Apache-2.0
// What happens to the third machine of a world.
#include "backupd/store/volume_file.h"
#include "tests/sim/world.h"

namespace ckpt::sim {

// It holds a checkpoint of this volume, whole; or none.
std::optional<FurtherStore> World::look_further(bool power) {
  std::optional<FurtherStore> found;
  further_->crash(power);
  const bool is_done = in_process("look at the further store", [&]() -> Result<> {
    CKPT_ASSIGN(found, further_->look(history_.volume));
    return {};
  });
  if (is_done && found) {
    const CheckpointInfo& last = found->last;
    history_.probes.hit("looked at what was passed on");
    const std::string wrong = history_.oracle.check_export(0, last.name, last.id.number.value,
                                                           read_versions(0, found->content));
    report(wrong.empty() ? "" : "at the further store, " + wrong);
  }
  return found;
}

void World::check_further() {
  const bool power = plan_.power_losses && random_.one_in(2);
  const auto found = scheduler_.failed() ? std::nullopt : look_further(power);
  if (!scheduler_.failed() && found && random_.one_in(4)) {
    change_store(*found);
  }
  if (!scheduler_.failed()) {
    further_->start();
  }
}

// The primary has begun a life, or was rolled back, of which the relay has not told yet: it will not
// know that store.
bool World::is_as_told(const FurtherStore& found) {
  std::optional<StoreRecord> record;
  (void)in_process("look at the store", [&]() -> Result<> {
    CKPT_ASSIGN(const auto folder, backup_disk_.root()->subdirectory(store_folder(), false));
    CKPT_ASSIGN(const auto file, VolumeFile::open(*folder));
    record = file->record();
    return {};
  });
  return record && record->last->id == found.last.id && record->incarnation == found.incarnation;
}

// The back-up's machine is lost for good: the further store takes its place, and another machine
// becomes the further one.
void World::change_store(const FurtherStore& found) {
  const uint64_t number = found.last.id.number.value;
  const uint64_t answered = history_.oracle.last_answered();
  if (!has_closed_ || history_.oracle.rolling_back() || number > answered || is_behind()) {
    return;
  }
  crash_backupd(Crash::kPower);
  if (number == answered && !is_as_told(found)) {
    start_backupd();
    return;
  }
  scheduler_.event("the further store takes the store's place", "", number);
  backup_disk_.put_back(store_folder(), further_->disk().copy(store_folder()));
  further_->disk().put_back(store_folder(), {});
  start_backupd();
  copy_.reset();
  if (number < answered) {
    history_.oracle.restore_backup(number, read_versions(0, found.content));
    behind_at_ = number;
  }
  history_.probes.hit(number < answered ? "an older further store takes the store's place"
                                        : "further store takes the store's place");
}

// Nothing breaks any more.
void World::expect_further_caught_up() {
  if (scheduler_.failed()) {
    return;
  }
  switch_backup_errors(false);
  (void)in_process("relay", [this]() -> Result<> {
    scheduler_.sleep(std::chrono::seconds(90));
    return {};
  });
  const auto found = look_further(false);
  const uint64_t last = history_.oracle.last_answered();
  if (!scheduler_.failed() && last > 0 && (!found || found->last.id.number.value < last)) {
    report("the further store has " +
           (found ? "checkpoint " + std::to_string(found->last.id.number.value) : "nothing") +
           ", not checkpoint " + std::to_string(last));
  }
}

}  // namespace ckpt::sim
