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
#include "tools/promoted_disk.h"
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
    "checkpoint.\n"
    "After a fail-over, on the machine that has the disk now: VOLUME is the image that was\n"
    "promoted, and has to be as it was then, since no back-up has that yet.\n\n"
    "  ckpt-tool restore disk.img --yes\n"
    "  ckpt-tool restore disk.img before-upgrade --yes -- --tcp-close",
    true, true};

struct RestoreOptions {
  std::string id = "last";
  std::string images;
  bool yes = false;
  bool as_is = false;
  std::vector<std::string> criu_options;
};

// What is brought back, and from where.
struct RestoreSource {
  CheckpointInfo target;
  VolumeApi* images = nullptr;             // whose attachments they are
  std::optional<PromotedDisk> promoted{};  // the disk is that already
};

Result<> check_agreed(Console& console, const RestoreSource& source, bool yes) {
  const CheckpointInfo& target = source.target;
  const std::string which =
      fmt::format("checkpoint {}{}, {}", target.id.number.value, quoted_name(target),
                  format_past(target.time, system_clock().wall()));
  const std::string loss =
      source.promoted
          ? "the processes of " + which + ", go on here; where they were they must have ended"
          : "its processes are ended, and what was written since " + which + ", is lost";
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

// Its own checkpoint, or the one that it was promoted at.
Result<RestoreSource> choose_source(const OpenedVolume& opened, const RestoreOptions& options) {
  const auto kept = opened.volume->checkpoints();
  auto target = kept ? find_checkpoint(*kept, options.id) : Unexpected(kept.error());
  if (target) {
    if (const auto had = check_has_processes(*target); had) {
      return RestoreSource{*target, opened.volume.get()};
    }
  }
  auto promoted = find_promoted(opened);
  if (!promoted || !find_checkpoint({promoted->checkpoint}, options.id)) {
    return target ? Unexpected(check_has_processes(*target).error()) : Unexpected(target.error());
  }
  CKPT_TRY(check_has_processes(promoted->checkpoint));
  CKPT_TRY(check_still_promoted(*promoted, *opened.volume, options.as_is));
  RestoreSource source{promoted->checkpoint, promoted->store.get()};
  source.promoted = std::move(promoted);
  return source;
}

// Another may have been made since, or somebody may have come.
Result<> check_still_there(const OpenedVolume& opened, const RestoreSource& source, bool as_is) {
  return source.promoted ? check_still_promoted(*source.promoted, *opened.volume, as_is)
                         : check_kept(*opened.volume, source.target);
}

Result<RollbackOutcome> go_back(Console& console, const OpenedVolume& opened,
                                const RestoreSource& source, MountedDisk& disk) {
  const CheckpointInfo& target = source.target;
  if (source.promoted) {
    CKPT_TRY(disk.bring_up());
    RollbackOutcome outcome;
    outcome.checkpoint = target;
    return outcome;
  }
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
  CKPT_ASSIGN(const RestoreSource source, choose_source(opened, options));
  const CheckpointInfo& target = source.target;
  CKPT_ASSIGN(const RestoreLock lock, RestoreLock::take(opened.paths.state));
  CKPT_ASSIGN(
      WorkFolder folder,
      WorkFolder::make(options.images.empty() ? opened.paths.state : options.images, "restore"));
  SavedProcesses saved(*source.images, target, folder.path());
  CKPT_TRY(fetch(saved, target));
  CKPT_ASSIGN(MountedDisk disk, MountedDisk::recorded(saved.record(), opened.volume->status()));
  CKPT_TRY(check_possible(saved, disk, folder.path()));
  CKPT_TRY(check_agreed(console, source, options.yes));
  CKPT_TRY(check_still_there(opened, source, options.as_is));
  CKPT_TRY(disk.give_up_requests());
  CKPT_TRY(end_processes(saved.processes()));
  if (auto free = check_numbers_free(saved.processes()); !free) {
    return half_way(free.error(), target, folder);
  }
  const auto outcome = go_back(console, opened, source, disk);
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
  arguments.add_flag(
      "--as-is", options->as_is,
      "After a fail-over: the disk may have been mounted since, but nothing on it was "
      "written to");
  arguments.add_flag("--yes", options->yes, "Does not ask");
}

}  // namespace ckpt
