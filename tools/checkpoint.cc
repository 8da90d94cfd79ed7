// SPDX-License-Identifier: Apache-2.0
// ckpt-tool checkpoint
#include <fmt/format.h>

#include <charconv>
#include <cmath>
#include <cstdlib>

#include "plugin/checkpoint_name.h"
#include "tools/attachment_source.h"
#include "tools/command.h"
#include "tools/format.h"
#include "tools/process_checkpoint.h"
#include "tools/run_folder.h"

namespace ckpt {
namespace {

constexpr CommandHelp kCheckpointHelp{
    "checkpoint", "Makes a checkpoint; returns when it exists",
    "The disk at one instant: every write answered before it is in, every write sent after it is\n"
    "not. It exists once the back-up has it durably. Clients go on writing meanwhile. What sits\n"
    "in a client's cache is not on the disk: sync or freeze the file system first (fsfreeze).\n"
    "Prints the number and, on failure, whether the checkpoint may still come to exist (exit 7)\n"
    "or never will (exit 1). With -q: the number alone.\n"
    "What is attached is part of it: `export --attachment NAME` gives it back.\n"
    "With --criu processes that work on the disk are part of it, too: CRIU freezes them, and\n"
    "what they are and what the disk is are of one instant; `restore` brings both back. They go\n"
    "on at once, while the checkpoint comes to exist. Words after -- are CRIU's (criu(8)).\n"
    "With --self, and no VOLUME, a command that `run` has started asks for a checkpoint of itself\n"
    "and its disk. When it is brought back to that, --self returns once more.\n\n"
    "  ckpt-tool checkpoint disk.img --name before-upgrade\n"
    "  ckpt-tool checkpoint disk.img --attach state=/run/app/state.bin\n"
    "  ckpt-tool checkpoint disk.img --criu 4711 --fs /mnt/data -- --tcp-close\n"
    "  n=$(ckpt-tool -q checkpoint disk.img)",
    false, true};

struct CheckpointOptions {
  std::string name;
  std::string message;
  std::vector<std::string> attach;  // NAME=FILE
  double timeout_seconds = 60;
  std::vector<std::string> criu;  // process numbers
  std::vector<std::string> fs;    // mount points
  std::string images;
  bool end_processes = false;
  bool self = false;
  std::vector<std::string> criu_options;
};

void say(Console& console, const CheckpointOutcome& outcome) {
  const CheckpointInfo& made = outcome.checkpoint;
  if (console.verbosity().quiet) {
    console.print(fmt::format("{}\n", made.id.number.value));
    return;
  }
  console.print(fmt::format("checkpoint {}{} {}: {} changed, {} shipped\n", made.id.number.value,
                            quoted_name(made), console.paint(Colour::kGood, "confirmed"),
                            format_bytes(made.changed_bytes), format_bytes(made.shipped_bytes)));
  console.detail(fmt::format("confirmed after {}; the longest that a write waited: {}",
                             format_duration(outcome.confirm), format_duration(outcome.stall)));
}

void say_freeze(Console& console, const ProcessOutcome& outcome) {
  if (!outcome.no_copy.empty()) {
    console.remark("no copy of the images was kept (attachments=): " + outcome.no_copy);
  }
  if (console.verbosity().quiet) {
    return;
  }
  const FreezeTimes& freeze = outcome.freeze;
  console.print(fmt::format("frozen{}: to sync the file systems {}, to cut {}\n",
                            freeze.frozen ? " for " + format_duration(*freeze.frozen) : "",
                            format_duration(freeze.sync), format_duration(freeze.cut)));
  if (!outcome.images.empty()) {
    console.print("CRIU's images are in " + printable(outcome.images) + "\n");
  }
}

Json to_result(const ProcessOutcome& outcome) {
  Json result = to_checkpoint_result(outcome.made);
  result["frozen_us"] = outcome.freeze.frozen ? Json(outcome.freeze.frozen->count()) : Json();
  result["sync_us"] = in_microseconds(outcome.freeze.sync);
  result["cut_us"] = in_microseconds(outcome.freeze.cut);
  result["images"] = outcome.images.empty() ? Json() : Json(outcome.images);
  return result;
}

Result<std::vector<pid_t>> parse_pids(const std::vector<std::string>& words) {
  std::vector<pid_t> pids;
  for (const std::string& word : words) {
    pid_t pid = 0;
    const auto [end, error] = std::from_chars(word.data(), word.data() + word.size(), pid);
    if (error != std::errc() || end != word.data() + word.size() || pid <= 0) {
      return fail(ErrorKind::kInvalid, "--criu " + word + ": give the number of a process");
    }
    pids.push_back(pid);
  }
  return pids;
}

Result<> check_process_options(const CheckpointOptions& options) {
  if (options.criu.empty() && (!options.fs.empty() || !options.images.empty() ||
                               options.end_processes || !options.criu_options.empty())) {
    return fail(ErrorKind::kInvalid,
                "--fs, --images, --end-processes and words after -- go with --criu PID");
  }
  if (!options.criu.empty() && options.fs.empty()) {
    return fail(ErrorKind::kInvalid,
                "--criu: give with --fs where the volume's disk is mounted: what the processes "
                "have written must be on the disk before it is cut");
  }
  return {};
}

Result<int> checkpoint_processes(Context& context, const VolumeName& name,
                                 CheckpointRequest request, const CheckpointOptions& options) {
  CKPT_ASSIGN(auto pids, parse_pids(options.criu));
  CKPT_ASSIGN(const OpenedVolume opened, open_primary(context, name));
  CKPT_ASSIGN(
      const auto checkpoint,
      ProcessCheckpoint::prepare(opened, std::move(request),
                                 {std::move(pids), options.fs, options.attach, options.criu_options,
                                  options.images, options.end_processes}));
  CKPT_ASSIGN(const ProcessOutcome outcome, checkpoint->make());
  context.console.result(to_result(outcome));
  say(context.console, outcome.made);
  say_freeze(context.console, outcome);
  return kExitDone;
}

std::chrono::milliseconds timeout_of(const CheckpointOptions& options) {
  return std::chrono::milliseconds(static_cast<int64_t>(std::ceil(options.timeout_seconds * 1000)));
}

Result<> check_self_options(const CheckpointOptions& options, bool has_volume) {
  const bool has_others = has_volume || !options.name.empty() || !options.message.empty() ||
                          !options.attach.empty() || !options.criu.empty() || !options.fs.empty() ||
                          !options.images.empty() || options.end_processes ||
                          !options.criu_options.empty();
  return has_others ? Result<>(fail(ErrorKind::kInvalid,
                                    "--self stands alone, but for --timeout: `run` knows the "
                                    "volume and its processes"))
                    : Result<>();
}

// By whoever has started this process.
Result<int> checkpoint_self(Context& context, const CheckpointOptions& options, bool has_volume) {
  CKPT_TRY(check_self_options(options, has_volume));
  const char* const folder = std::getenv("CKPT_CONTROL");
  if (folder == nullptr || *folder == 0) {
    return fail(ErrorKind::kInvalid,
                "--self: $CKPT_CONTROL is not set: only what `ckpt-tool run` has started can ask");
  }
  CKPT_ASSIGN(const RunAnswer answer, ask_for_checkpoint(folder, timeout_of(options)));
  context.console.result(
      Json{{"checkpoint", answer.checkpoint.value}, {"restored", answer.restored}});
  context.console.print(context.console.verbosity().quiet
                            ? fmt::format("{}\n", answer.checkpoint.value)
                            : fmt::format("{} checkpoint {}\n",
                                          answer.restored ? "brought back to" : "confirmed",
                                          answer.checkpoint.value));
  return kExitDone;
}

Result<int> checkpoint(Context& context, const VolumeName& name, const CheckpointOptions& options) {
  CKPT_TRY(check_name(options.name));
  CKPT_TRY(check_message(options.message));
  CKPT_TRY(check_process_options(options));
  std::unique_ptr<AttachmentSource> source;
  if (!options.attach.empty() && options.criu.empty()) {
    CKPT_ASSIGN(source, AttachmentSource::open(options.attach));
  }
  CheckpointRequest request{
      options.name, options.message, {}, source == nullptr ? nullptr : source->feed()};
  request.timeout = timeout_of(options);
  if (!options.criu.empty()) {
    return checkpoint_processes(context, name, std::move(request), options);
  }
  CKPT_ASSIGN(const OpenedVolume opened, open_named(context, name));
  CKPT_ASSIGN(const CheckpointOutcome outcome, opened.volume->checkpoint(request));
  context.console.result(to_checkpoint_result(outcome));
  say(context.console, outcome);
  return kExitDone;
}

}  // namespace

void add_checkpoint(CLI::App& app, Invocation& invocation) {
  const auto options = std::make_shared<CheckpointOptions>();
  Arguments arguments =
      add_command(app, invocation, kCheckpointHelp,
                  [options, &invocation](Context& context, const VolumeName& name) {
                    options->criu_options = invocation.rest;
                    return options->self ? checkpoint_self(context, *options, invocation.has_volume)
                           : invocation.has_volume
                               ? checkpoint(context, name, *options)
                               : Result<int>(fail(ErrorKind::kInvalid,
                                                  "VOLUME is required: see `ckpt-tool checkpoint "
                                                  "--help`"));
                  });
  arguments.add_text("--name", "NAME", options->name,
                     "Calls it so; a name belongs to one checkpoint");
  arguments.add_text("--message", "TEXT", options->message, "A text to keep with it");
  arguments.add_texts("--attach", "NAME=FILE", options->attach,
                      "Stores the content of FILE with it, as attachment NAME; again for more");
  arguments.add_seconds("--timeout", options->timeout_seconds,
                        {0.001, std::chrono::duration<double>(kTimeoutMax).count()},
                        "Seconds to wait until it exists");
  arguments.add_texts(
      "--criu", "PID", options->criu,
      "Saves this process, and all that descend from it, with CRIU; again for more");
  arguments.add_texts("--fs", "MOUNT", options->fs,
                      "Where the volume's disk is mounted; again for more");
  arguments.add_filled_text("--images", "DIR", options->images,
                            "Leaves CRIU's images in a folder there, called as the checkpoint");
  arguments.add_flag("--end-processes", options->end_processes,
                     "They end with the dump, when the checkpoint exists, instead of going on");
  arguments.add_flag("--self", options->self,
                     "Of the command that `ckpt-tool run` has started, by a process of it");
}

}  // namespace ckpt
