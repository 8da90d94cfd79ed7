// SPDX-License-Identifier: Apache-2.0
// ckpt-tool switch
#include <fmt/format.h>

#include <cmath>

#include "plugin/control_socket.h"
#include "plugin/role_switch.h"
#include "tools/command.h"
#include "tools/format.h"
#include "tools/rejoin_shelf.h"

namespace ckpt {
namespace {

constexpr CommandHelp kSwitchHelp{
    "switch", "A planned change of roles: the back-up becomes the primary, without loss",
    "VOLUME is the primary, whose server was stopped. Takes a last checkpoint, has its back-up\n"
    "become the primary at that, and moves the image into the folder of this machine's backupd\n"
    "(--store), whose back-up it is from then on, as rejoin does. An image that was a back-up "
    "itself\n"
    "goes back to its own folder, without --store. Asks on a terminal; without one it needs "
    "--yes.\n\n"
    "Then, on the other machine:\n"
    "  ckpt-tool promote STORE/UUID --yes --serve -- backup=THIS-MACHINE:PORT\n\n"
    "  ckpt-tool switch disk.img --store /var/lib/ckpt"};

constexpr SecondsRange kTimeoutRange{1, 24 * 3600};

struct SwitchCommandOptions {
  std::string store;  // empty: the image is in its folder already
  double timeout_seconds = 60;
  bool yes = false;
};

Result<> agree(Console& console, const std::string& image, const std::string& backup, bool yes) {
  const std::string plan = printable(image) + " becomes the back-up, and what is at " +
                           printable(backup) + " the primary, after a last checkpoint";
  return console.agree(plan, "Switch?", yes, "not switched");
}

void say(Console& console, const SwitchOutcome& outcome) {
  const CheckpointInfo& checkpoint = outcome.checkpoint;
  console.result(Json{{"checkpoint", checkpoint.id.number.value},
                      {"volume", outcome.volume.to_string()},
                      {"timeline", checkpoint.id.timeline.to_string()},
                      {"primary", outcome.backup},
                      {"store", outcome.store_path}});
  if (console.verbosity().quiet) {
    return;
  }
  console.print(fmt::format(
      "{} at checkpoint {}: {} is a back-up, and the disk is at {}. There:\n"
      "  ckpt-tool promote STORE/{} --yes --serve -- backup=THIS-MACHINE:PORT\n",
      console.paint(Colour::kGood, "switched"), checkpoint.id.number.value,
      printable(outcome.store_path), printable(outcome.backup), outcome.volume.to_string()));
}

Result<int> run_switch(Context& context, const VolumeName& name,
                       const SwitchCommandOptions& options) {
  Console& console = context.console;
  CKPT_ASSIGN(const VolumePaths paths, find_volume(name));
  CKPT_TRY(require_primary(paths));
  if (ControlConnection::connect(paths.state)) {
    return fail(ErrorKind::kBusy,
                paths.state + ": a server runs for this volume: stop it first, with its clients");
  }
  if (!options.yes && !console.interactive()) {
    return fail(ErrorKind::kInvalid,
                "the disk is the other machine's afterwards, and there is no terminal to ask on: "
                "give --yes");
  }
  SwitchOptions how;
  how.rejoin.image_path = paths.image;
  how.rejoin.state_path = paths.state;
  CKPT_ASSIGN(how.rejoin.shelf_path, choose_shelf(paths, options.store));
  how.rejoin.backup = name.backup;
  how.rejoin.tls = name.tls;
  how.rejoin.on_ready = [](const RejoinPlan& /*plan*/) { return Result<>(); };
  how.timeout =
      std::chrono::milliseconds(static_cast<int64_t>(std::ceil(options.timeout_seconds * 1000)));
  how.on_ready = [&](const std::string& backup) {
    return agree(console, paths.image, backup, options.yes);
  };
  CKPT_ASSIGN(const SwitchOutcome outcome, switch_roles(how));
  say(console, outcome);
  return kExitDone;
}

}  // namespace

void add_switch(CLI::App& app, Invocation& invocation) {
  const auto options = std::make_shared<SwitchCommandOptions>();
  Arguments arguments = add_command(app, invocation, kSwitchHelp,
                                    [options](Context& context, const VolumeName& name) {
                                      return run_switch(context, name, *options);
                                    });
  arguments.add_filled_text("--store", "DIR", options->store,
                            "The folder that this machine's backupd has as --store, on the image's "
                            "file system");
  arguments.add_seconds("--timeout", options->timeout_seconds, kTimeoutRange,
                        "Seconds that the last checkpoint may take");
  arguments.add_flag("--yes", options->yes, "Does not ask");
}

}  // namespace ckpt
