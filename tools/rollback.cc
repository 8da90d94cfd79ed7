// SPDX-License-Identifier: Apache-2.0
// ckpt-tool rollback
#include <fmt/format.h>

#include "tools/command.h"
#include "tools/format.h"
#include "tools/mounted_disk.h"
#include "tools/progress_bar.h"

namespace ckpt {
namespace {

constexpr CommandHelp kRollbackHelp{
    "rollback", "Puts the disk back to what it was at a checkpoint",
    "What was written since is lost; says how much, and asks on a terminal. Without a terminal it\n"
    "needs --yes. ID is a number, a name, or `last` (the default). Works through the running "
    "server\n"
    "or, where none runs, by itself. Interrupted by a crash, it completes at the next start.\n"
    "With --rebuild it makes an image that is missing, or damaged, anew from the back-up.\n\n"
    "A client's cache knows nothing of it: unmount first. Therefore, with --clients=\n"
    "  refuse  (the default) nothing is done while a client is connected: exit status 5\n"
    "  fence   connected clients get errors, and none may connect until `ckpt-tool accept`\n"
    "  keep    requests are held until it is done; only for a client that caches nothing, such as\n"
    "          a paused VM whose memory goes back too\n\n"
    "  ckpt-tool rollback disk.img --dry-run\n"
    "  ckpt-tool rollback disk.img before-upgrade --yes"};

struct RollbackOptions {
  std::string id = "last";
  std::string clients = "refuse";
  bool dry_run = false;
  bool yes = false;
  bool rebuild = false;
  std::vector<std::string> fs;  // mount points
};

std::string loss_of(const RollbackOutcome& preview, const RollbackOptions& options) {
  const CheckpointInfo& target = preview.checkpoint;
  if (options.rebuild) {
    return fmt::format(
        "the whole image is written from checkpoint {}{}, {}; whatever it holds is lost: {} to "
        "restore",
        target.id.number.value, quoted_name(target),
        format_past(target.time, system_clock().wall()),
        format_bytes_exact(preview.restored_bytes));
  }
  return fmt::format("what was written since checkpoint {}{}, {}, is lost: {} to restore",
                     target.id.number.value, quoted_name(target),
                     format_past(target.time, system_clock().wall()),
                     format_bytes_exact(preview.restored_bytes));
}

// The fields that scripts rely on, and what they must not miss.
Json to_result(const RollbackOutcome& outcome, bool dry_run) {
  const Json all = to_json(outcome);
  Json result;
  for (const char* field : {"checkpoint", "restored_bytes", "elapsed_ms", "fenced"}) {
    result[field] = all[field];
  }
  result["dry_run"] = dry_run;
  return result;
}

Result<RollbackOutcome> perform(Console& console, VolumeApi& volume,
                                const RollbackRequest& request) {
  ProgressBar bar(console, request.dry_run ? "comparing" : "rolling back", system_clock());
  return volume.roll_back(request, bar.progress());
}

// With the disk's file systems unmounted meanwhile.
Result<RollbackOutcome> perform_below(Console& console, const OpenedVolume& opened,
                                      const RollbackRequest& request,
                                      const std::vector<std::string>& points) {
  CKPT_ASSIGN(MountedDisk disk, MountedDisk::find(points, opened.volume->status()));
  ProgressBar bar(console, "rolling back", system_clock());
  return roll_back_below(disk, *opened.volume, request, bar.progress());
}

void say(Console& console, const VolumeName& name, const RollbackOutcome& outcome) {
  if (console.verbosity().quiet) {
    return;
  }
  console.print(fmt::format(
      "{} to checkpoint {}{}: {} restored in {}\n", console.paint(Colour::kGood, "rolled back"),
      outcome.checkpoint.id.number.value, quoted_name(outcome.checkpoint),
      format_bytes(outcome.restored_bytes), format_duration(outcome.elapsed)));
  if (outcome.fenced) {
    console.remark("clients are refused until: ckpt-tool accept " + name.path);
  }
}

// Says what will be lost; whether to go on.
bool agreed(Console& console, const RollbackOutcome& preview, const RollbackOptions& options) {
  const std::string loss = loss_of(preview, options);
  if (options.yes) {
    console.remark(loss);
  }
  return options.yes || console.confirm(loss + "\nRoll back?");
}

Result<int> rollback(Context& context, const VolumeName& name, const RollbackOptions& options) {
  Console& console = context.console;
  if (!options.yes && !options.dry_run && !console.interactive()) {
    return fail(ErrorKind::kInvalid,
                "a rollback destroys what was written since the checkpoint, and there is no "
                "terminal to ask on: give --yes, or --dry-run to see what would be lost");
  }
  if (!options.fs.empty() && (options.rebuild || options.clients != "refuse")) {
    return fail(ErrorKind::kInvalid,
                "--fs detaches the disk and attaches it again: not with --rebuild or --clients");
  }
  CKPT_ASSIGN(const OpenedVolume opened, open_named(context, name));
  RollbackRequest request{options.id, *client_policy_of(options.clients), true, options.rebuild};
  CKPT_ASSIGN(const RollbackOutcome preview, perform(console, *opened.volume, request));
  if (options.dry_run) {
    console.result(to_result(preview, true));
    console.print(loss_of(preview, options) + "\n");
    return kExitDone;
  }
  if (!agreed(console, preview, options)) {
    return fail(ErrorKind::kVoid, "not rolled back: nothing changed");
  }
  // "last" may be another by now: what was agreed to is a number.
  request = {std::to_string(preview.checkpoint.id.number.value), request.clients, false,
             options.rebuild};
  CKPT_ASSIGN(const RollbackOutcome outcome,
              options.fs.empty() ? perform(console, *opened.volume, request)
                                 : perform_below(console, opened, request, options.fs));
  console.result(to_result(outcome, false));
  say(console, name, outcome);
  return kExitDone;
}

}  // namespace

void add_rollback(CLI::App& app, Invocation& invocation) {
  const auto options = std::make_shared<RollbackOptions>();
  Arguments arguments = add_command(app, invocation, kRollbackHelp,
                                    [options](Context& context, const VolumeName& name) {
                                      return rollback(context, name, *options);
                                    });
  arguments.add_word("ID", options->id, "The checkpoint: its number, its name, or `last`");
  arguments.add_choice("--clients", "POLICY", options->clients, {"refuse", "fence", "keep"},
                       "What to do about connected clients");
  arguments.add_flag("--dry-run", options->dry_run, "Says what would be lost, and changes nothing");
  arguments.add_flag("--yes", options->yes, "Does not ask");
  arguments.add_texts("--fs", "MOUNT", options->fs,
                      "Unmounts the disk here first, and mounts it again; again for more");
  arguments.add_flag(
      "--rebuild", options->rebuild,
      "Writes every block, also of an image that is missing or damaged; no server runs");
}

}  // namespace ckpt
