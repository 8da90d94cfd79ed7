// SPDX-License-Identifier: Apache-2.0
#include "tests/sim/fail_over.h"

#include <algorithm>

#include "backupd/store/store.h"
#include "backupd/store/volume_file.h"
#include "plugin/no_store.h"

namespace ckpt::sim {

Result<StoreRecord> promote_store(Machine& machine, const std::string& folder, const Uuid& volume,
                                  const ServerOptions& options) {
  const std::unique_ptr<Directory> root = machine.backup_disk.root();
  CKPT_ASSIGN(auto directory, root->subdirectory(folder, false));
  StoreRecord record;
  {
    CKPT_ASSIGN(const auto file, VolumeFile::open(*directory));
    record = file->record();
  }
  if (record.is_handed_over()) {
    return record;
  }
  StoreOptions store_options;
  store_options.volume = volume;
  store_options.size_bytes = record.size_bytes;
  store_options.address = folder;
  store_options.unapplied_bytes_max = options.unapplied_bytes_max;
  store_options.clock = &machine.scheduler.clock();
  CKPT_ASSIGN(const auto store, Store::open(std::move(directory), store_options));
  CKPT_ASSIGN(record.last, store->promote(machine.scheduler.random().uuid()));
  record.forks = store->record().forks;
  return record;
}

Result<> give_up_role(Machine& machine, const ServerOptions& options, const std::string& name,
                      const std::function<void(const Result<CheckpointOutcome>&)>& on_made) {
  ServerOptions offline = options;
  offline.volume.start.offline = true;
  auto server = Server::open(machine, offline);
  if (!server) {
    return server.error().kind == ErrorKind::kFenced ? Result<>() : Unexpected(server.error());
  }
  Volume& volume = (*server)->volume();
  CKPT_TRY(volume.check_backup_promotes());
  (*server)->start_pumps();
  const auto made = volume.checkpoint({.name = name, .message = ""});
  on_made(made);
  auto promoted = made ? volume.promote_backup() : Result<CheckpointInfo>(Unexpected(made.error()));
  (void)(*server)->close();
  return promoted ? Result<>() : Unexpected(promoted.error());
}

Result<bool> is_superseded(Machine& machine) {
  CKPT_ASSIGN(const auto state, machine.disk.root()->subdirectory(kStateName, false));
  CKPT_ASSIGN(const auto file, VolumeRecordFile::open(*state, machine.scheduler.random()));
  return file->get().superseded;
}

Result<> draft_store(Machine& machine, const ServerOptions& options) {
  const std::unique_ptr<Directory> root = machine.disk.root();
  CKPT_ASSIGN(const auto image, root->open(kImageName, OpenMode::kReadWrite));
  CKPT_ASSIGN(const auto state, root->subdirectory(kStateName, false));
  StartOptions start = options.volume.start;
  start.offline = true;
  CKPT_ASSIGN(const StartedVolume started,
              start_volume(surroundings_of(machine, *image, *state), start));
  CKPT_ASSIGN(const auto draft, root->subdirectory(kDraftName, true));
  CKPT_TRY(draft->subdirectory("journal", true));
  CKPT_TRY(draft->subdirectory("attachments", true));
  CKPT_ASSIGN(const StoreRecord store, save_stale(*draft, started.record->get(),
                                                  started.disk->epochs.current().written, true));
  CKPT_TRY(VolumeFile::create(*draft, store));
  return {};
}

Result<> make_state(Machine& machine, const StoreRecord& promoted, const ServerOptions& options) {
  const std::unique_ptr<Directory> root = machine.disk.root();
  CKPT_ASSIGN(const auto image, root->open(kImageName, OpenMode::kReadWrite));
  CKPT_ASSIGN(const auto state, root->subdirectory(kStateName, true));
  CKPT_TRY(root->sync());
  CKPT_ASSIGN(const auto names, state->list());
  if (std::ranges::find(names, "volume") != names.end()) {
    CKPT_ASSIGN(const auto file, VolumeRecordFile::open(*state, machine.scheduler.random()));
    return file->get().volume == promoted.volume
               ? Result<>()
               : fail(ErrorKind::kInvalid, "it is of another volume");
  }
  VolumeOptions volume_options = options.volume;
  volume_options.has_backup = false;
  volume_options.start.offline = true;
  volume_options.start.origin = origin_of(promoted);
  NoStore none;
  CKPT_ASSIGN(const auto volume,
              Volume::open(
                  surroundings_of(machine, *image, *state), volume_options,
                  [&none](const VolumeRecord&) { return Result<StoreLink*>(&none); },
                  [] { return false; }));
  return volume->close();
}

}  // namespace ckpt::sim
