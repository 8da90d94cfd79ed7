// SPDX-License-Identifier: Apache-2.0
// ckpt-tool forget
#include "plugin/forget.h"

#include <fmt/format.h>

#include "plugin/control_socket.h"
#include "tools/command.h"
#include "tools/format.h"

namespace ckpt {
namespace {

constexpr CommandHelp kForgetHelp{
    "forget", "Ends protection: removes the back-up, and leaves the image as it is",
    "The state directory, the checkpoint and the back-up are removed, also one on another disk.\n"
    "The image stays what it is, byte for byte. Asks on a terminal; without one it needs --yes.\n"
    "Stop the server first (exit status 5). What is not ckpt's is left (exit status 3).\n\n"
    "  ckpt-tool forget disk.img"};

// Nothing of the volume is opened: it may be damaged.
Result<VolumePaths> find_stopped(const VolumeName& name) {
  CKPT_ASSIGN(VolumePaths paths, find_volume(name));
  if (paths.is_store) {
    return fail(ErrorKind::kInvalid,
                paths.state +
                    ": is a back-up by itself: give the volume that it belongs to, or "
                    "remove the folder");
  }
  if (ControlConnection::connect(paths.state)) {
    return fail(ErrorKind::kBusy, paths.state + ": a server runs for this volume: stop it first");
  }
  return paths;
}

void say(Console& console, const VolumePaths& paths, const ForgetOutcome& outcome) {
  if (!console.verbosity().quiet) {
    console.print(fmt::format("{} is no longer protected\n",
                              printable(paths.image.empty() ? paths.state : paths.image)));
  }
  if (!outcome.remote_left.empty()) {
    console.remark("the back-up at " + printable(outcome.remote_left) +
                   " was left: remove its folder there");
  }
  for (const std::string& path : outcome.left) {
    console.remark(printable(path) + " holds what is not ckpt's, and was left");
  }
}

Result<int> forget(Context& context, const VolumeName& name, bool yes) {
  Console& console = context.console;
  CKPT_ASSIGN(const VolumePaths paths, find_stopped(name));
  if (!yes && !console.interactive()) {
    return fail(ErrorKind::kInvalid,
                "the back-up and its checkpoint are removed for good, and there is no terminal to "
                "ask on: give --yes");
  }
  const auto agree = [&](const std::string& remote) {
    const std::string loss =
        (remote.empty() ? "the back-up in " + printable(paths.state) +
                              " and its checkpoint are removed for good"
                        : printable(paths.state) + " is removed for good, the back-up at " +
                              printable(remote) + " is left") +
        "; the image stays as it is";
    if (yes) {
      console.remark(loss);
    }
    return yes || console.confirm(loss + "\nForget?");
  };
  CKPT_ASSIGN(const ForgetOutcome outcome, forget_volume(paths.state, paths.image, agree));
  console.result(
      Json{{"image", paths.image}, {"left", outcome.left}, {"backup_left", outcome.remote_left}});
  say(console, paths, outcome);
  return outcome.left.empty() ? kExitDone : kExitDegraded;
}

}  // namespace

void add_forget(CLI::App& app, Invocation& invocation) {
  const auto yes = std::make_shared<bool>(false);
  Arguments arguments = add_command(
      app, invocation, kForgetHelp,
      [yes](Context& context, const VolumeName& name) { return forget(context, name, *yes); });
  arguments.add_flag("--yes", *yes, "Does not ask");
}

}  // namespace ckpt
