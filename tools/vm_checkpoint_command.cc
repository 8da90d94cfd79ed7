// SPDX-License-Identifier: Apache-2.0
// ckpt-tool vm checkpoint
#include <fmt/format.h>

#include <cmath>
#include <csignal>

#include "plugin/checkpoint_name.h"
#include "tools/format.h"
#include "tools/open_machine.h"
#include "tools/vm_checkpoint.h"

namespace ckpt {
namespace {

constexpr CommandHelp kVmCheckpointHelp{
    "checkpoint", "Makes a checkpoint of a machine's disk and memory; returns when it exists",
    "The machine stands still while its disk is cut, so that disk and memory are of one instant:\n"
    "`vm rollback` brings both back. Which disk of the machine is the volume is found out. Modes:\n"
    "  background  the memory is saved while the machine runs on; it needs Linux 5.7 or later\n"
    "              (userfaultfd), and root or vm.unprivileged_userfaultfd=1 for QEMU\n"
    "  snapshot    the machine stands still until its memory is saved\n"
    "  disk        the disk alone, at the instant; with --agent as the guest's file systems want "
    "it\n"
    "Without --mode: the first of the first two that works. A machine that stands still already\n"
    "stays so. On failure it runs on, if it ran, and there is no checkpoint.\n\n"
    "  ckpt-tool vm checkpoint vm.img --qmp /run/vm.qmp --name before-upgrade"};

struct VmCheckpointWords {
  MachineName machine;
  std::string agent;  // of a channel's socket
  std::string mode;
  std::string name;
  std::string message;
  double timeout_seconds = 600;
};

std::optional<VmMode> mode_of(const std::string& word) {
  return word == "background" ? std::optional(VmMode::kBackground)
         : word == "snapshot" ? std::optional(VmMode::kSnapshot)
         : word == "disk"     ? std::optional(VmMode::kDisk)
                              : std::nullopt;
}

// The next one replaces this one, and has no memory.
void warn_of_interval(Console& console, const std::vector<OpenedVolume>& volumes) {
  for (const OpenedVolume& opened : volumes) {
    if (opened.volume->status().checkpoint_interval.count() > 0) {
      console.remark(printable(opened.paths.image) +
                     ": checkpoint-interval= replaces it by one of the disk alone, soon");
    }
  }
}

Json to_result(const VmCheckpointOutcome& outcome) {
  Json result = to_checkpoint_result(outcome.made.front());
  result["mode"] = to_text(outcome.mode);
  result["paused_us"] = in_microseconds(outcome.paused);
  result["flush_us"] = in_microseconds(outcome.flush);
  result["cut_us"] = in_microseconds(outcome.cut);
  result["memory_bytes"] = outcome.memory_bytes;
  result["frozen_file_systems"] = outcome.frozen;
  Json checkpoints = Json::array();
  for (const CheckpointOutcome& made : outcome.made) {
    checkpoints.push_back(made.checkpoint.id.number.value);
  }
  result["checkpoints"] = std::move(checkpoints);
  result["not_saved"] = outcome.others;
  return result;
}

void say(Console& console, const VmCheckpointOutcome& outcome) {
  const CheckpointInfo& made = outcome.made.front().checkpoint;
  for (const std::string& other : outcome.others) {
    console.remark("not saved, since it is no volume: " + printable(other));
  }
  if (!outcome.why_mode.empty()) {
    console.remark(outcome.why_mode);
  }
  if (!outcome.no_copy.empty()) {
    console.remark("no copy of the memory was kept (attachments=): " + outcome.no_copy);
  }
  if (console.verbosity().quiet) {
    console.print(fmt::format("{}\n", made.id.number.value));
    return;
  }
  console.print(fmt::format("checkpoint {}{} {}: {} changed, {} of memory\n", made.id.number.value,
                            quoted_name(made), console.paint(Colour::kGood, "confirmed"),
                            format_bytes(made.changed_bytes), format_bytes(outcome.memory_bytes)));
  console.print(fmt::format("the machine stood still for {}: to flush {}, to cut {} ({})\n",
                            format_duration(outcome.paused), format_duration(outcome.flush),
                            format_duration(outcome.cut), to_text(outcome.mode)));
  if (outcome.frozen > 0) {
    console.print(fmt::format("the guest's agent had frozen {} file system{}\n", outcome.frozen,
                              outcome.frozen == 1 ? "" : "s"));
  }
}

// Nobody: the machine has none that is known.
Result<std::unique_ptr<GuestAgent>> find_agent(VirtualMachine& machine,
                                               const VmCheckpointWords& words) {
  if (!words.agent.empty()) {
    return connect_agent(words.agent);
  }
  if (!words.machine.domain.empty()) {
    return connect_agent_of_domain(words.machine.domain);
  }
  CKPT_ASSIGN(const std::string socket, machine.agent_socket());
  return socket.empty() ? Result<std::unique_ptr<GuestAgent>>(std::unique_ptr<GuestAgent>())
                        : connect_agent(socket);
}

// A disk without the memory is better with what the guest has cached. An agent that was not asked
// for may be missing.
Result<std::unique_ptr<GuestAgent>> agent_for(Console& console, VirtualMachine& machine,
                                              const VmCheckpointWords& words) {
  if (words.mode != "disk") {
    return words.agent.empty()
               ? Result<std::unique_ptr<GuestAgent>>(std::unique_ptr<GuestAgent>())
               : fail(ErrorKind::kInvalid,
                      "--agent goes with --mode disk: what is cached is in the memory");
  }
  auto agent = find_agent(machine, words);
  if (!agent && words.agent.empty()) {
    console.remark("as after a loss of power, since " + agent.error().message());
    return std::unique_ptr<GuestAgent>();
  }
  return agent;
}

Result<int> checkpoint_machine(Context& context, const VolumeName& name, VmCheckpointWords words) {
  std::signal(SIGPIPE, SIG_IGN);  // whoever reads what is saved may be gone
  CKPT_TRY(check_name(words.name));
  CKPT_TRY(check_message(words.message));
  CKPT_ASSIGN(auto volumes, open_volumes(context, name, words.machine.with, true));
  use_own_monitor(volumes.front(), words.machine);
  if (words.machine.qmp.empty() == words.machine.domain.empty()) {
    return fail(ErrorKind::kInvalid, "give one of --qmp SOCKET and --domain NAME");
  }
  CKPT_ASSIGN(const auto port, connect_machine(words.machine));
  VirtualMachine machine(*port);
  CKPT_ASSIGN(const auto agent, agent_for(context.console, machine, words));
  CKPT_ASSIGN(const auto locks, lock_all(volumes));
  const std::chrono::milliseconds timeout(
      static_cast<int64_t>(std::ceil(words.timeout_seconds * 1000)));
  CKPT_ASSIGN(const auto checkpoint, VmCheckpoint::prepare(volumes, machine,
                                                           {mode_of(words.mode), words.name,
                                                            words.message, timeout, agent.get()}));
  CKPT_ASSIGN(const VmCheckpointOutcome outcome, checkpoint->make());
  context.console.result(to_result(outcome));
  say(context.console, outcome);
  warn_of_interval(context.console, volumes);
  return kExitDone;
}

}  // namespace

void add_checkpoint_of_vm(CLI::App& vm, Invocation& invocation) {
  const auto words = std::make_shared<VmCheckpointWords>();
  Arguments arguments = add_command(vm, invocation, kVmCheckpointHelp,
                                    [words](Context& context, const VolumeName& name) {
                                      return checkpoint_machine(context, name, *words);
                                    });
  arguments.add_filled_text("--qmp", "SOCKET", words->machine.qmp,
                            "Of a monitor of QEMU (-qmp unix:SOCKET,server=on,wait=off)");
  add_domain(arguments, words->machine);
  arguments.add_choice("--mode", "MODE", words->mode, {"background", "snapshot", "disk"},
                       "How long the machine stands still");
  arguments.add_filled_text(
      "--agent", "SOCKET", words->agent,
      "With --mode disk: of the guest's agent, which freezes its file systems");
  add_with(arguments, words->machine);
  arguments.add_text("--name", "NAME", words->name,
                     "Calls it so; a name belongs to one checkpoint");
  arguments.add_text("--message", "TEXT", words->message, "A text to keep with it");
  arguments.add_seconds("--timeout", words->timeout_seconds,
                        {0.001, std::chrono::duration<double>(kTimeoutMax).count()},
                        "Seconds to wait until it exists");
}

}  // namespace ckpt
