// SPDX-License-Identifier: Apache-2.0
// ckpt-tool checkpoint
#include <fmt/format.h>

#include <cmath>

#include "plugin/checkpoint_name.h"
#include "tools/command.h"
#include "tools/format.h"

namespace ckpt {
namespace {

constexpr CommandHelp kHelp{
    "checkpoint", "Makes a checkpoint; returns when it exists",
    "The disk at one instant: every write answered before it is in, every write sent after it is\n"
    "not. It exists once the back-up has it durably. Clients go on writing meanwhile. What sits\n"
    "in a client's cache is not on the disk: sync or freeze the file system first (fsfreeze).\n"
    "Prints the number and, on failure, whether the checkpoint may still come to exist (exit 7)\n"
    "or never will (exit 1). With -q: the number alone.\n\n"
    "  ckpt-tool checkpoint disk.img --name before-upgrade\n"
    "  n=$(ckpt-tool -q checkpoint disk.img)"};

struct Options {
  std::string name;
  std::string message;
  double timeout_seconds = 60;
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

// The fields that scripts rely on, and no others.
Json to_result(const CheckpointOutcome& outcome) {
  const Json all = to_json(outcome);
  Json result;
  for (const char* field : {"checkpoint", "name", "state", "changed_bytes", "shipped_bytes",
                            "stall_us", "confirm_ms"}) {
    result[field] = all[field];
  }
  return result;
}

Result<int> checkpoint(Context& context, const VolumeName& name, const Options& options) {
  CKPT_TRY(check_name(options.name));
  CKPT_TRY(check_message(options.message));
  CheckpointRequest request{options.name, options.message, {}};
  request.timeout =
      std::chrono::milliseconds(static_cast<int64_t>(std::ceil(options.timeout_seconds * 1000)));
  CKPT_ASSIGN(const OpenedVolume opened, open_named(context, name));
  CKPT_ASSIGN(const CheckpointOutcome outcome, opened.volume->checkpoint(request));
  context.console.result(to_result(outcome));
  say(context.console, outcome);
  return kExitDone;
}

}  // namespace

void add_checkpoint(CLI::App& app, Invocation& invocation) {
  const auto options = std::make_shared<Options>();
  Arguments arguments =
      add_command(app, invocation, kHelp, [options](Context& context, const VolumeName& name) {
        return checkpoint(context, name, *options);
      });
  arguments.add_text("--name", "NAME", options->name,
                     "Calls it so; a name belongs to one checkpoint");
  arguments.add_text("--message", "TEXT", options->message, "A text to keep with it");
  arguments.add_seconds("--timeout", options->timeout_seconds,
                        {0.001, std::chrono::duration<double>(kTimeoutMax).count()},
                        "Seconds to wait until it exists");
}

}  // namespace ckpt
