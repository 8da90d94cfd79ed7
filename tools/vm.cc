// SPDX-License-Identifier: Apache-2.0
// ckpt-tool vm, and what it starts: vm run
#include <filesystem>
#include <memory>

#include "tools/open_machine.h"
#include "tools/program.h"
#include "tools/vm_run.h"

namespace ckpt {
namespace {

constexpr CommandHelp kVmHelp{
    "vm", "Checkpoints and rollback of a virtual machine of QEMU's, its memory too",
    "`ckpt-tool vm COMMAND --help` says what a command does. The machine has the volume as a raw "
    "disk\n"
    "through QEMU's own NBD client; docs/vm.md says how."};

constexpr CommandHelp kVmRunHelp{
    "run", "Starts a machine of QEMU's on a volume",
    "QEMU, with the volume as its disk, and a monitor in the state directory, where `vm "
    "checkpoint`\n"
    "and `vm rollback` find it. It takes the tool's place, and its terminal. Words after -- are\n"
    "QEMU's; what they leave out of -machine, -accel, -cpu and -m is added. --print says the\n"
    "command instead, for a script or a unit.\n\n"
    "  ckpt-tool vm run vm.img -- -m 2G -smp 2 -nographic\n"
    "  ckpt-tool vm checkpoint vm.img --name good",
    true, true};

struct VmRunWords {
  MachineName machine;
  bool print = false;
  std::vector<std::string> rest;
};

Result<int> run_machine(Context& context, const VolumeName& name, const VmRunWords& words) {
  CKPT_ASSIGN(auto volumes, open_volumes(context, name, words.machine.with, true));
  std::vector<VolumeStatus> statuses;
  for (const OpenedVolume& opened : volumes) {
    statuses.push_back(opened.volume->status());
  }
  const std::string monitor = words.machine.qmp.empty()
                                  ? monitor_of(volumes.front().paths)
                                  : std::filesystem::absolute(words.machine.qmp).string();
  CKPT_ASSIGN(const auto qemu, words_of_machine(words.rest, statuses, monitor));
  if (words.print) {
    context.console.result(Json{{"command", qemu}});
    context.console.print(shell_line(qemu) + "\n");
    return kExitDone;
  }
  CKPT_TRY(check_no_machine(volumes));
  CKPT_TRY(context.console.finish());
  CKPT_TRY(become(qemu));
  return kExitFailed;
}

void add_run_of_vm(CLI::App& vm, Invocation& invocation) {
  const auto words = std::make_shared<VmRunWords>();
  Arguments arguments = add_command(vm, invocation, kVmRunHelp,
                                    [words, &invocation](Context& context, const VolumeName& name) {
                                      words->rest = invocation.rest;
                                      return run_machine(context, name, *words);
                                    });
  arguments.add_filled_text("--qmp", "SOCKET", words->machine.qmp,
                            "Of the monitor, instead of vm.qmp in the state directory");
  add_with(arguments, words->machine);
  arguments.add_flag("--print", words->print, "Says the command, and does nothing");
}

}  // namespace

void add_vm(CLI::App& app, Invocation& invocation) {
  CLI::App& vm = add_command_group(app, kVmHelp);
  add_run_of_vm(vm, invocation);
  add_checkpoint_of_vm(vm, invocation);
  add_rollback_of_vm(vm, invocation);
}

}  // namespace ckpt
