// SPDX-License-Identifier: Apache-2.0
// ckpt-tool vm
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <csignal>
#include <filesystem>
#include <set>
#include <thread>

#include "plugin/checkpoint_name.h"
#include "tools/command.h"
#include "tools/format.h"
#include "tools/program.h"
#include "tools/progress_bar.h"
#include "tools/saved_processes.h"
#include "tools/vm_checkpoint.h"
#include "tools/vm_rollback.h"
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

constexpr std::chrono::seconds kLeavePatience{2};
constexpr std::chrono::milliseconds kLeaveLook{20};

struct VmWords {
  std::string qmp;                // of a monitor's socket
  std::string domain;             // or of libvirt
  std::vector<std::string> with;  // further volumes of the machine
  std::string agent;              // of a channel's socket
  std::string mode;
  std::string name;
  std::string message;
  double timeout_seconds = 600;
  std::string id = "last";
  bool fresh = false;
  bool print = false;
  bool disk_only = false;
  bool paused = false;
  bool yes = false;
  std::vector<std::string> rest;
};

std::optional<VmMode> mode_of(const std::string& word) {
  return word == "background" ? std::optional(VmMode::kBackground)
         : word == "snapshot" ? std::optional(VmMode::kSnapshot)
         : word == "disk"     ? std::optional(VmMode::kDisk)
                              : std::nullopt;
}

// The volume, and those that go with it.
Result<std::vector<OpenedVolume>> open_all(Context& context, const VolumeName& name,
                                           const VmWords& words) {
  std::vector<OpenedVolume> volumes;
  CKPT_ASSIGN(OpenedVolume first, open_primary(context, name));
  volumes.push_back(std::move(first));
  for (const std::string& path : words.with) {
    VolumeName other;
    other.path = path;
    CKPT_ASSIGN(OpenedVolume opened, open_primary(context, other));
    volumes.push_back(std::move(opened));
  }
  for (const OpenedVolume& opened : volumes) {
    if (!opened.served && !words.disk_only) {
      return fail(ErrorKind::kNotFound,
                  opened.paths.image + ": no server runs: no machine can have its disk");
    }
    if (const VolumeStatus status = opened.volume->status(); status.state.empty()) {
      return fail(ErrorKind::kIo, status.problem);
    }
  }
  return volumes;
}

// Of each, so that whatever is given first is kept apart; always in the same order.
Result<std::vector<RestoreLock>> lock_all(const std::vector<OpenedVolume>& volumes) {
  std::set<std::string> states;
  for (const OpenedVolume& opened : volumes) {
    states.insert(opened.paths.state);
  }
  if (states.size() != volumes.size()) {
    return fail(ErrorKind::kInvalid, "--with: one of the volumes is given twice");
  }
  std::vector<RestoreLock> locks;
  for (const std::string& state : states) {
    CKPT_ASSIGN(RestoreLock lock, RestoreLock::take(state));
    locks.push_back(std::move(lock));
  }
  return locks;
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

// Of a machine that `vm run` has started, unless another way is given.
void use_own_monitor(const OpenedVolume& first, VmWords& words) {
  std::error_code unknown;
  if (words.qmp.empty() && words.domain.empty() &&
      std::filesystem::exists(monitor_of(first.paths), unknown)) {
    words.qmp = monitor_of(first.paths);
  }
}

// By what the machine is spoken to.
Result<std::unique_ptr<QmpPort>> connect(const VmWords& words) {
  if (words.domain.empty()) {
    CKPT_ASSIGN(auto socket, QmpSocket::connect(words.qmp));
    return std::unique_ptr<QmpPort>(std::move(socket));
  }
  CKPT_ASSIGN(auto domain, QmpDomain::connect(words.domain));
  return std::unique_ptr<QmpPort>(std::move(domain));
}

int64_t microseconds(std::chrono::nanoseconds time) {
  return std::chrono::duration_cast<std::chrono::microseconds>(time).count();
}

int64_t milliseconds(std::chrono::nanoseconds time) {
  return std::chrono::ceil<std::chrono::milliseconds>(time).count();
}

Json to_result(const VmCheckpointOutcome& outcome) {
  const Json all = to_json(outcome.made.front());
  Json result;
  for (const char* field : {"checkpoint", "name", "state", "changed_bytes", "shipped_bytes",
                            "stall_us", "confirm_ms"}) {
    result[field] = all[field];
  }
  result["mode"] = to_text(outcome.mode);
  result["paused_us"] = microseconds(outcome.paused);
  result["flush_us"] = microseconds(outcome.flush);
  result["cut_us"] = microseconds(outcome.cut);
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
Result<std::unique_ptr<GuestAgent>> find_agent(VirtualMachine& machine, const VmWords& words) {
  if (!words.agent.empty()) {
    return connect_agent(words.agent);
  }
  if (!words.domain.empty()) {
    return connect_agent_of_domain(words.domain);
  }
  CKPT_ASSIGN(const std::string socket, machine.agent_socket());
  return socket.empty() ? Result<std::unique_ptr<GuestAgent>>(std::unique_ptr<GuestAgent>())
                        : connect_agent(socket);
}

// A disk without the memory is better with what the guest has cached. An agent that was not asked
// for may be missing.
Result<std::unique_ptr<GuestAgent>> agent_for(Console& console, VirtualMachine& machine,
                                              const VmWords& words) {
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

Result<int> checkpoint(Context& context, const VolumeName& name, VmWords words) {
  std::signal(SIGPIPE, SIG_IGN);  // whoever reads what is saved may be gone
  CKPT_TRY(check_name(words.name));
  CKPT_TRY(check_message(words.message));
  CKPT_ASSIGN(auto volumes, open_all(context, name, words));
  use_own_monitor(volumes.front(), words);
  if (words.qmp.empty() == words.domain.empty()) {
    return fail(ErrorKind::kInvalid, "give one of --qmp SOCKET and --domain NAME");
  }
  CKPT_ASSIGN(const auto port, connect(words));
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
              {"elapsed_ms", milliseconds(outcome.disk.elapsed + outcome.memory)},
              {"disk_ms", milliseconds(outcome.disk.elapsed)},
              {"memory_ms", milliseconds(outcome.memory)},
              {"paused_us", microseconds(outcome.paused)}};
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
                               const VmWords& words) {
  auto connected = connect(words);
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

// Waits for those that are just leaving.
Result<> check_no_machine(const std::vector<OpenedVolume>& volumes) {
  const SteadyTime deadline = system_clock().steady() + kLeavePatience;
  for (const OpenedVolume& opened : volumes) {
    uint32_t count = opened.volume->status().connections;
    while (count > 0 && system_clock().steady() < deadline) {
      std::this_thread::sleep_for(kLeaveLook);
      count = opened.volume->status().connections;
    }
    if (count > 0) {
      return fail(ErrorKind::kBusy,
                  fmt::format("{}: {} client{} connected: end the machine first, or roll it back "
                              "in place (--qmp)",
                              opened.paths.image, count, count == 1 ? " is" : "s are"));
    }
  }
  return {};
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
                            const VmWords& words) {
  CKPT_ASSIGN(SavedMachine saved, SavedMachine::fetch(volumes, words.id));
  const bool is_recorded = words.rest.empty();
  std::vector<std::string> qemu = is_recorded ? saved.record().command : words.rest;
  if (qemu.empty()) {
    return fail(ErrorKind::kInvalid,
                "with what words QEMU was started is not on record: give them after --");
  }
  add_monitor(qemu, words.qmp);
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
                           const VmWords& words) {
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

Result<> check_rollback_words(const VmWords& words) {
  const bool in_place = !words.domain.empty() || (!words.qmp.empty() && !words.fresh);
  if (!words.domain.empty() && !words.qmp.empty()) {
    return fail(ErrorKind::kInvalid, "give one of --qmp SOCKET and --domain NAME");
  }
  if ((words.fresh ? 1 : 0) + (words.disk_only ? 1 : 0) + (in_place ? 1 : 0) > 1) {
    return fail(ErrorKind::kInvalid, kWays);
  }
  if ((words.print || !words.rest.empty()) && !words.fresh) {
    return fail(ErrorKind::kInvalid, "--print and words after -- go with --fresh");
  }
  if (words.disk_only && !words.with.empty()) {
    return fail(ErrorKind::kInvalid, "--disk-only rolls back one volume: repeat it for the others");
  }
  return {};
}

Result<int> rollback(Context& context, const VolumeName& name, VmWords words) {
  std::signal(SIGPIPE, SIG_IGN);
  CKPT_TRY(check_rollback_words(words));
  CKPT_ASSIGN(auto volumes, open_all(context, name, words));
  if (!words.fresh && !words.disk_only) {
    use_own_monitor(volumes.front(), words);
    if (words.qmp.empty() && words.domain.empty()) {
      return fail(ErrorKind::kInvalid, kWays);
    }
  }
  CKPT_ASSIGN(const auto locks, lock_all(volumes));
  return words.fresh       ? roll_back_fresh(context, volumes, words)
         : words.disk_only ? roll_back_disk(context, volumes, words)
                           : roll_back_in_place(context, volumes, words);
}

Result<int> run_machine(Context& context, const VolumeName& name, const VmWords& words) {
  CKPT_ASSIGN(auto volumes, open_all(context, name, words));
  std::vector<VolumeStatus> statuses;
  for (const OpenedVolume& opened : volumes) {
    statuses.push_back(opened.volume->status());
  }
  const std::string monitor = words.qmp.empty() ? monitor_of(volumes.front().paths)
                                                : std::filesystem::absolute(words.qmp).string();
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

void add_with(Arguments& arguments, VmWords& words) {
  arguments.add_texts("--with", "VOLUME", words.with,
                      "Another volume that is a disk of the same machine; again for more");
}

void add_domain(Arguments& arguments, VmWords& words) {
  arguments.add_filled_text("--domain", "NAME", words.domain,
                            "Of libvirt, instead of --qmp; asked by virsh");
}

void add_checkpoint_of_vm(CLI::App& vm, Invocation& invocation) {
  const auto words = std::make_shared<VmWords>();
  Arguments arguments = add_command(vm, invocation, kVmCheckpointHelp,
                                    [words](Context& context, const VolumeName& name) {
                                      return checkpoint(context, name, *words);
                                    });
  arguments.add_filled_text("--qmp", "SOCKET", words->qmp,
                            "Of a monitor of QEMU (-qmp unix:SOCKET,server=on,wait=off)");
  add_domain(arguments, *words);
  arguments.add_choice("--mode", "MODE", words->mode, {"background", "snapshot", "disk"},
                       "How long the machine stands still");
  arguments.add_filled_text(
      "--agent", "SOCKET", words->agent,
      "With --mode disk: of the guest's agent, which freezes its file systems");
  add_with(arguments, *words);
  arguments.add_text("--name", "NAME", words->name,
                     "Calls it so; a name belongs to one checkpoint");
  arguments.add_text("--message", "TEXT", words->message, "A text to keep with it");
  arguments.add_seconds("--timeout", words->timeout_seconds,
                        {0.001, std::chrono::duration<double>(kTimeoutMax).count()},
                        "Seconds to wait until it exists");
}

void add_run_of_vm(CLI::App& vm, Invocation& invocation) {
  const auto words = std::make_shared<VmWords>();
  Arguments arguments = add_command(vm, invocation, kVmRunHelp,
                                    [words, &invocation](Context& context, const VolumeName& name) {
                                      words->rest = invocation.rest;
                                      return run_machine(context, name, *words);
                                    });
  arguments.add_filled_text("--qmp", "SOCKET", words->qmp,
                            "Of the monitor, instead of vm.qmp in the state directory");
  add_with(arguments, *words);
  arguments.add_flag("--print", words->print, "Says the command, and does nothing");
}

void add_rollback_of_vm(CLI::App& vm, Invocation& invocation) {
  const auto words = std::make_shared<VmWords>();
  Arguments arguments = add_command(vm, invocation, kVmRollbackHelp,
                                    [words, &invocation](Context& context, const VolumeName& name) {
                                      words->rest = invocation.rest;
                                      return rollback(context, name, *words);
                                    });
  arguments.add_word("ID", words->id, "The checkpoint: its number, its name, or `last`");
  arguments.add_filled_text("--qmp", "SOCKET", words->qmp,
                            "In place: of a monitor of QEMU. With --fresh: that it is to have");
  add_domain(arguments, *words);
  arguments.add_flag("--fresh", words->fresh, "Into a new QEMU");
  arguments.add_flag("--print", words->print,
                     "With --fresh: says by what commands, and does nothing");
  arguments.add_flag("--disk-only", words->disk_only, "The disk alone, where no machine runs");
  add_with(arguments, *words);
  arguments.add_flag("--paused", words->paused, "The machine stands still afterwards");
  arguments.add_flag("--yes", words->yes, "Does not ask");
}

}  // namespace

void add_vm(CLI::App& app, Invocation& invocation) {
  CLI::App& vm = add_command_group(app, kVmHelp);
  add_run_of_vm(vm, invocation);
  add_checkpoint_of_vm(vm, invocation);
  add_rollback_of_vm(vm, invocation);
}

}  // namespace ckpt
