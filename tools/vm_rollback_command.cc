// SPDX-License-Identifier: Apache-2.0
// ckpt-tool vm rollback
#include <fmt/format.h>

#include <algorithm>
#include <csignal>

#include "plugin/checkpoint_name.h"
#include "tools/format.h"
#include "tools/held_signals.h"
#include "tools/open_machine.h"
#include "tools/program.h"
#include "tools/progress_bar.h"
#include "tools/vm_rollback.h"

namespace ckpt {
namespace {

constexpr CommandHelp kVmRollbackHelp{
    "rollback", "Puts a machine's disk and memory back to what they were at a checkpoint",
    "For a checkpoint made by `vm checkpoint`. What was written since is lost, and so is what is "
    "in\n"
    "the machine's memory. With --qmp in place: the machine stands still, its disk is rolled back\n"
    "below it, its memory is loaded, and it runs on from that instant.\n"
    "With --fresh into a new QEMU, where the old one has ended: it is started with the words that\n"
    "the checkpoint has on record, or those after --, and outlives the tool.\n"
    "What it says is appended to vm.log in the state directory. --print says by what commands\n"
    "instead, and changes nothing.\n"
    "With --disk-only the disk alone, where no machine runs.\n\n"
    "  ckpt-tool vm rollback vm.img --qmp /run/vm.qmp --yes\n"
    "  ckpt-tool vm rollback vm.img before-upgrade --fresh --yes",
    true, true};

struct VmRollbackWords {
  MachineName machine;
  std::string id = "last";
  bool fresh = false;
  bool print = false;
  bool disk_only = false;
  bool paused = false;
  bool yes = false;
  std::vector<std::string> rest;
};

int64_t in_milliseconds(std::chrono::nanoseconds time) {
  return std::chrono::ceil<std::chrono::milliseconds>(time).count();
}

Result<> check_agreed(Console& console, const CheckpointInfo& target, bool yes,
                      const std::string& what) {
  const std::string loss = fmt::format("{}what was written since checkpoint {}{}, {}, is lost",
                                       what, target.id.number.value, quoted_name(target),
                                       format_past(target.time, system_clock().wall()));
  if (!yes && !console.interactive()) {
    return fail(ErrorKind::kInvalid, loss + ": there is no terminal to ask on: give --yes");
  }
  if (yes) {
    console.remark(loss);
  }
  return yes || console.confirm(loss + "\nRoll back?")
             ? Result<>()
             : Result<>(fail(ErrorKind::kVoid, "not rolled back: nothing changed"));
}

void say(Console& console, const VmRollbackOutcome& outcome,
         const std::vector<std::string>& others = {}) {
  const CheckpointInfo& target = outcome.disk.checkpoint;
  Json result{{"checkpoint", target.id.number.value},
              {"restored_bytes", outcome.disk.restored_bytes},
              {"elapsed_ms", in_milliseconds(outcome.disk.elapsed + outcome.memory)},
              {"disk_ms", in_milliseconds(outcome.disk.elapsed)},
              {"memory_ms", in_milliseconds(outcome.memory)},
              {"paused_us", in_microseconds(outcome.paused)}};
  result["pid"] = outcome.pid > 0 ? Json(outcome.pid) : Json();
  result["not_rolled_back"] = others;
  console.result(result);
  if (console.verbosity().quiet) {
    return;
  }
  console.print(fmt::format("{} to checkpoint {}{}: {} of the disk in {}, the memory in {}\n",
                            console.paint(Colour::kGood, "rolled back"), target.id.number.value,
                            quoted_name(target), format_bytes(outcome.disk.restored_bytes),
                            format_duration(outcome.disk.elapsed),
                            format_duration(outcome.memory)));
  if (outcome.pid > 0) {
    console.print(fmt::format("QEMU is process {}\n", outcome.pid));
  }
}

// A machine whose memory knows them as they were.
std::string warning_of(const std::vector<std::string>& others) {
  std::string list;
  for (const std::string& other : others) {
    list += (list.empty() ? "" : ", ") + printable(other);
  }
  return list.empty() ? "" : "these disks of the machine do not go back with it: " + list + "; ";
}

Result<int> roll_back_in_place(Context& context, std::vector<OpenedVolume>& volumes,
                               const VmRollbackWords& words) {
  auto connected = connect_machine(words.machine);
  if (!connected && connected.error().kind == ErrorKind::kNotFound) {
    return fail(
        ErrorKind::kNotFound,
        connected.error().message() + ". Where the machine has ended, --fresh starts a new one");
  }
  CKPT_ASSIGN(const auto port, std::move(connected));
  VirtualMachine machine(*port);
  CKPT_TRY(machine.take_over());
  CKPT_ASSIGN(SavedMachine saved, SavedMachine::fetch(volumes, words.id));
  CKPT_ASSIGN(const auto others, saved.check_machine(machine));
  CKPT_TRY(check_agreed(context.console, saved.target(), words.yes,
                        warning_of(others) + "what is in the machine's memory, and "));
  CKPT_TRY(saved.check_kept());
  const HeldSignals held;
  ProgressBar bar(context.console, "rolling back", system_clock());
  CKPT_ASSIGN(const VmRollbackOutcome outcome,
              roll_back_in_place(machine, saved, !words.paused, bar.progress()));
  say(context.console, outcome, others);
  return kExitDone;
}

// One line: a memory without its disks would be of another instant.
void print_commands(Console& console, const SavedMachine& saved,
                    const std::vector<std::string>& words) {
  Json commands = Json::array();
  std::string line;
  const auto images = saved.images();
  for (const auto& [image, checkpoint] : images) {
    const std::string rollback =
        shell_line({"ckpt-tool", "vm", "rollback", image, std::to_string(checkpoint.value),
                    "--disk-only", "--yes"});
    commands.push_back(rollback);
    line += rollback + " && ";
  }
  const auto& [image, checkpoint] = images.front();
  std::vector<std::string> qemu = words_for_new(words);
  qemu.insert(qemu.end(), {"-incoming", "exec:" + shell_line({"ckpt-tool", "export", image,
                                                              std::to_string(checkpoint.value), "-",
                                                              "--attachment", kMemoryAttachment})});
  commands.push_back(shell_line(qemu));
  console.result(Json{{"checkpoint", saved.target().id.number.value},
                      {"commands", std::move(commands)},
                      {"directory", saved.record().directory}});
  console.print(line + shell_line(qemu) + "\n");
  console.remark("in " + printable(saved.record().directory) +
                 "; where the machine stands still then, `cont` in its monitor lets it run");
}

// Unless it has it already.
void add_monitor(std::vector<std::string>& qemu, const std::string& socket) {
  const bool has_it = std::ranges::any_of(
      qemu, [&socket](const std::string& word) { return word.find(socket) != std::string::npos; });
  if (!has_it) {
    qemu.insert(qemu.end(), {"-qmp", "unix:" + socket + ",server=on,wait=off"});
  }
}

Result<int> roll_back_fresh(Context& context, std::vector<OpenedVolume>& volumes,
                            const VmRollbackWords& words) {
  CKPT_ASSIGN(SavedMachine saved, SavedMachine::fetch(volumes, words.id));
  const bool is_recorded = words.rest.empty();
  std::vector<std::string> qemu = is_recorded ? saved.record().command : words.rest;
  if (qemu.empty()) {
    return fail(ErrorKind::kInvalid,
                "with what words QEMU was started is not on record: give them after --");
  }
  add_monitor(qemu, words.machine.qmp);
  if (words.print) {
    print_commands(context.console, saved, qemu);
    return kExitDone;
  }
  CKPT_TRY(check_no_machine(volumes));
  CKPT_TRY(check_agreed(context.console, saved.target(), words.yes, ""));
  CKPT_TRY(saved.check_kept());
  const VmStart start{qemu, is_recorded ? saved.record().directory : "",
                      volumes.front().paths.state + "/vm.log"};
  const HeldSignals held;
  ProgressBar bar(context.console, "rolling back", system_clock());
  CKPT_ASSIGN(const VmRollbackOutcome outcome,
              roll_back_into_new(start, saved, !words.paused, bar.progress()));
  say(context.console, outcome);
  return kExitDone;
}

// What has a memory on record may go back without, if that is asked for.
Result<int> roll_back_disk(Context& context, std::vector<OpenedVolume>& volumes,
                           const VmRollbackWords& words) {
  CKPT_TRY(check_no_machine(volumes));
  VolumeApi& volume = *volumes.front().volume;
  CKPT_ASSIGN(const auto kept, volume.checkpoints());
  CKPT_ASSIGN(const CheckpointInfo target, find_checkpoint(kept, words.id));
  CKPT_TRY(check_agreed(context.console, target, words.yes, ""));
  ProgressBar bar(context.console, "rolling back", system_clock());
  CKPT_ASSIGN(const RollbackOutcome done,
              volume.roll_back({std::to_string(target.id.number.value)}, bar.progress()));
  say(context.console, VmRollbackOutcome{done});
  return kExitDone;
}

constexpr const char* kWays =
    "give one of --qmp SOCKET or --domain NAME (in place), --fresh (a new QEMU) and --disk-only";

Result<> check_rollback_words(const VmRollbackWords& words) {
  const bool in_place =
      !words.machine.domain.empty() || (!words.machine.qmp.empty() && !words.fresh);
  if (!words.machine.domain.empty() && !words.machine.qmp.empty()) {
    return fail(ErrorKind::kInvalid, "give one of --qmp SOCKET and --domain NAME");
  }
  if ((words.fresh ? 1 : 0) + (words.disk_only ? 1 : 0) + (in_place ? 1 : 0) > 1) {
    return fail(ErrorKind::kInvalid, kWays);
  }
  if ((words.print || !words.rest.empty()) && !words.fresh) {
    return fail(ErrorKind::kInvalid, "--print and words after -- go with --fresh");
  }
  if (words.disk_only && !words.machine.with.empty()) {
    return fail(ErrorKind::kInvalid, "--disk-only rolls back one volume: repeat it for the others");
  }
  return {};
}

Result<int> roll_back_machine(Context& context, const VolumeName& name, VmRollbackWords words) {
  std::signal(SIGPIPE, SIG_IGN);
  CKPT_TRY(check_rollback_words(words));
  CKPT_ASSIGN(auto volumes, open_volumes(context, name, words.machine.with, !words.disk_only));
  if (!words.fresh && !words.disk_only) {
    use_own_monitor(volumes.front(), words.machine);
    if (words.machine.qmp.empty() && words.machine.domain.empty()) {
      return fail(ErrorKind::kInvalid, kWays);
    }
  }
  CKPT_ASSIGN(const auto locks, lock_all(volumes));
  return words.fresh       ? roll_back_fresh(context, volumes, words)
         : words.disk_only ? roll_back_disk(context, volumes, words)
                           : roll_back_in_place(context, volumes, words);
}

}  // namespace

void add_rollback_of_vm(CLI::App& vm, Invocation& invocation) {
  const auto words = std::make_shared<VmRollbackWords>();
  Arguments arguments = add_command(vm, invocation, kVmRollbackHelp,
                                    [words, &invocation](Context& context, const VolumeName& name) {
                                      words->rest = invocation.rest;
                                      return roll_back_machine(context, name, *words);
                                    });
  arguments.add_word("ID", words->id, "The checkpoint: its number, its name, or `last`");
  arguments.add_filled_text("--qmp", "SOCKET", words->machine.qmp,
                            "In place: of a monitor of QEMU. With --fresh: that it is to have");
  add_domain(arguments, words->machine);
  arguments.add_flag("--fresh", words->fresh, "Into a new QEMU");
  arguments.add_flag("--print", words->print,
                     "With --fresh: says by what commands, and does nothing");
  arguments.add_flag("--disk-only", words->disk_only, "The disk alone, where no machine runs");
  add_with(arguments, words->machine);
  arguments.add_flag("--paused", words->paused, "The machine stands still afterwards");
  arguments.add_flag("--yes", words->yes, "Does not ask");
}

}  // namespace ckpt
