// SPDX-License-Identifier: Apache-2.0
// ckpt-tool accept
#include "tools/command.h"

namespace ckpt {
namespace {

constexpr CommandHelp kAcceptHelp{
    "accept", "Lets clients connect again after a fencing rollback",
    "After `rollback --clients=fence`, and after an offline rollback of a volume whose server\n"
    "died with clients connected, the export refuses every client, also across restarts: a\n"
    "kernel that reconnects by itself would write its stale cache over the restored disk.\n"
    "Make sure that no old client still has the disk (umount, nbd-client -d), then accept.\n\n"
    "  ckpt-tool accept disk.img"};

Result<int> accept(Context& context, const VolumeName& name) {
  CKPT_ASSIGN(const OpenedVolume opened, open_named(context, name));
  CKPT_TRY(opened.volume->accept());
  context.console.result(Json::object());
  if (!context.console.verbosity().quiet) {
    context.console.print("clients may connect\n");
  }
  return kExitDone;
}

}  // namespace

void add_accept(CLI::App& app, Invocation& invocation) {
  add_command(app, invocation, kAcceptHelp, accept);
}

}  // namespace ckpt
