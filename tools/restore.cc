// SPDX-License-Identifier: Apache-2.0
// ckpt-tool restore
#include <fmt/format.h>

#include <set>

#include "plugin/checkpoint_name.h"
#include "tools/command.h"
#include "tools/criu.h"
#include "tools/format.h"
#include "tools/mounted_disk.h"
#include "tools/progress_bar.h"
#include "tools/saved_processes.h"
#include "tools/work_folder.h"

namespace ckpt {
namespace {

constexpr CommandHelp kRestoreHelp{
    "restore", "Brings processes and their disk back to a checkpoint",
    "For a checkpoint made with --criu. Ends what is left of its processes, unmounts and detaches\n"
    "the disk, rolls it back, attaches and mounts it as it was, and lets CRIU restore the\n"
    "processes, from images that are part of the same checkpoint. What is written and what they\n"
    "are is then of one instant. If it is interrupted, the same command goes on. What was written\n"
    "since the checkpoint is lost. Words after -- are CRIU's (criu(8)); without, those of the\n"
    "checkpoint.\n\n"
    "  ckpt-tool restore disk.img --yes\n"
    "  ckpt-tool restore disk.img before-upgrade --yes -- --tcp-close",
    true, true};

struct RestoreOptions {
  std::string id = "last";
  std::string images;
  bool yes = false;
  std::vector<std::string> criu_options;
};

Result<> check_agreed(Console& console, const CheckpointInfo& target, bool yes) {
  const std::string loss = fmt::format(
      "its processes are ended, and what was written since checkpoint {}{}, {}, is lost",
      target.id.number.value, quoted_name(target), format_past(target.time, system_clock().wall()));
  if (!yes && !console.interactive()) {
    return fail(ErrorKind::kInvalid, loss + ": there is no terminal to ask on: give --yes");
  }
  if (yes) {
    console.remark(loss);
  }
  return yes || console.confirm(loss + "\nRestore?")
             ? Result<>()
             : Result<>(fail(ErrorKind::kVoid, "not restored: nothing changed"));
}

void say(Console& console, const RollbackOutcome& outcome, const std::vector<pid_t>& pids,
         bool is_from_copy) {
  const CheckpointInfo& target = outcome.checkpoint;
  console.result(
      Json{{"checkpoint", target.id.number.value},
           {"restored_bytes", outcome.restored_bytes},
           {"elapsed_ms", std::chrono::ceil<std::chrono::milliseconds>(outcome.elapsed).count()},
           {"processes", pids},
           {"images_from", is_from_copy ? "copy" : "back-up"}});
  if (!console.verbosity().quiet) {
    console.print(fmt::format("{} to checkpoint {}{}: {} of the disk, and process {}\n",
                              console.paint(Colour::kGood, "restored"), target.id.number.value,
                              quoted_name(target), format_bytes(outcome.restored_bytes),
                              fmt::join(pids, ", ")));
  }
}

Result<> fetch(SavedProcesses& saved, const CheckpointInfo& target) {
  const auto fetched = saved.fetch();
  return fetched ? Result<>()
                 : Result<>(fail(fetched.error().kind,
                                 fetched.error().message() +
                                     fmt::format(": the processes of checkpoint {} cannot be "
                                                 "restored; nothing was done. Its disk can go "
                                                 "back: ckpt-tool rollback",
                                                 target.id.number.value)));
}

// All that can be found out while nothing has been done.
Result<> check_possible(const SavedProcesses& saved, const MountedDisk& disk,
                        const std::string& folder) {
  CKPT_TRY(check_elsewhere(folder, disk.mounts()));
  const auto processes = saved.processes();
  CKPT_TRY(check_can_end(processes));
  CKPT_TRY(check_numbers_free(processes));
  std::set<pid_t> ending;
  for (const ProcessIdentity& process : living(processes)) {
    ending.insert(process.pid);
  }
  return disk.check(ending);
}

// Another may have been made since: only the last one is kept.
Result<> check_kept(VolumeApi& volume, const CheckpointInfo& target) {
  CKPT_ASSIGN(const auto kept, volume.checkpoints());
  const auto found = find_checkpoint(kept, std::to_string(target.id.number.value));
  return found ? Result<>() : Result<>(Unexpected(found.error()));
}

Result<RollbackOutcome> go_back(Console& console, const OpenedVolume& opened,
                                const CheckpointInfo& target, MountedDisk& disk) {
  ProgressBar bar(console, "rolling back", system_clock());
  return roll_back_below(disk, *opened.volume, {std::to_string(target.id.number.value)},
                         bar.progress());
}

// The processes have ended: what they were is not thrown away.
Unexpected half_way(const Error& error, const CheckpointInfo& target, WorkFolder& folder) {
  return fail(ErrorKind::kHalfway,
              error.message() + ". Its processes have ended; CRIU's images are " + "left in " +
                  folder.keep_as("images-" + std::to_string(target.id.number.value)) +
                  ". When this is mended, the same command goes on");
}

Result<int> restore(Context& context, const VolumeName& name, const RestoreOptions& options) {
  Console& console = context.console;
  CKPT_TRY(find_criu());
  CKPT_ASSIGN(const OpenedVolume opened, open_primary(context, name));
  if (!opened.served) {
    return fail(ErrorKind::kNotFound, opened.paths.image +
                                          ": no server runs: start it, so that its disk can be "
                                          "attached and mounted");
  }
  CKPT_ASSIGN(const auto kept, opened.volume->checkpoints());
  CKPT_ASSIGN(const CheckpointInfo target, find_checkpoint(kept, options.id));
  CKPT_TRY(check_has_processes(target));
  CKPT_ASSIGN(const RestoreLock lock, RestoreLock::take(opened.paths.state));
  CKPT_ASSIGN(
      WorkFolder folder,
      WorkFolder::make(options.images.empty() ? opened.paths.state : options.images, "restore"));
  SavedProcesses saved(*opened.volume, target, folder.path());
  CKPT_TRY(fetch(saved, target));
  CKPT_ASSIGN(MountedDisk disk, MountedDisk::recorded(saved.record(), opened.volume->status()));
  CKPT_TRY(check_possible(saved, disk, folder.path()));
  CKPT_TRY(check_agreed(console, target, options.yes));
  CKPT_TRY(check_kept(*opened.volume, target));
  CKPT_TRY(disk.give_up_requests());
  CKPT_TRY(end_processes(saved.processes()));
  if (auto free = check_numbers_free(saved.processes()); !free) {
    return half_way(free.error(), target, folder);
  }
  const auto outcome = go_back(console, opened, target, disk);
  if (!outcome) {
    return half_way(outcome.error(), target, folder);
  }
  const auto pids = saved.restore(
      options.criu_options.empty() ? saved.record().options : options.criu_options, lock);
  if (!pids) {
    return half_way(pids.error(), target, folder);
  }
  say(console, *outcome, *pids, saved.is_from_copy());
  return kExitDone;
}

}  // namespace

void add_restore(CLI::App& app, Invocation& invocation) {
  const auto options = std::make_shared<RestoreOptions>();
  Arguments arguments =
      add_command(app, invocation, kRestoreHelp,
                  [options, &invocation](Context& context, const VolumeName& name) {
                    options->criu_options = invocation.rest;
                    return restore(context, name, *options);
                  });
  arguments.add_word("ID", options->id, "The checkpoint: its number, its name, or `last`");
  arguments.add_filled_text(
      "--images", "DIR", options->images,
      "Where the images are unpacked meanwhile, instead of the state directory");
  arguments.add_flag("--yes", options->yes, "Does not ask");
}

}  // namespace ckpt
