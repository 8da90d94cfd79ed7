// SPDX-License-Identifier: Apache-2.0
#include "tools/process_tree.h"

#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <filesystem>
#include <map>
#include <optional>
#include <sstream>
#include <thread>

#include "common/clock.h"
#include "common/text.h"
#include "tools/text_file.h"

namespace ckpt {
namespace {

namespace fs = std::filesystem;

// One may wait for a device that has lost its server.
constexpr std::chrono::seconds kEndPatience{60};
constexpr std::chrono::seconds kNoticePatience{5};
constexpr std::chrono::milliseconds kEndLook{10};
constexpr size_t kCommandBytes = 512;                // tell one program from another
constexpr unsigned long kKernelThread = 0x00200000;  // PF_KTHREAD, proc_pid_stat(5)
constexpr unsigned long kExiting = 0x00000004;       // PF_EXITING

// What proc_pid_stat(5) says.
struct Stat {
  std::string name;
  char state = 0;
  pid_t parent = 0;
  unsigned long flags = 0;
  uint64_t start = 0;
};

std::optional<Stat> stat_of(pid_t pid) {
  const std::string text = content_of("/proc/" + std::to_string(pid) + "/stat");
  const size_t open = text.find('(');
  const size_t close = text.rfind(')');  // the name may have one, too
  if (open == std::string::npos || close == std::string::npos || close < open) {
    return std::nullopt;
  }
  Stat found;
  found.name = text.substr(open + 1, close - open - 1);
  std::istringstream words(text.substr(close + 1));
  std::string skipped;
  words >> found.state >> found.parent >> skipped >> skipped >> skipped >> skipped >> found.flags;
  constexpr int kFlagsField = 9;
  constexpr int kStartField = 22;
  for (int field = kFlagsField + 1; field < kStartField; ++field) {
    words >> skipped;
  }
  words >> found.start;
  return words ? std::optional(found) : std::nullopt;
}

// One that has ended and is not yet waited for holds nothing any more, but its number.
bool is_alive(const Stat& stat) { return stat.state != 'Z' && stat.state != 'X'; }

std::map<pid_t, Stat> all_processes() {
  std::map<pid_t, Stat> all;
  std::error_code ignored;
  for (const auto& entry : fs::directory_iterator("/proc", ignored)) {
    const pid_t pid = static_cast<pid_t>(std::strtol(entry.path().filename().c_str(), nullptr, 10));
    if (auto stat = pid > 0 ? stat_of(pid) : std::nullopt) {
      all.emplace(pid, std::move(*stat));
    }
  }
  return all;
}

// A set of signals, of what proc_pid_status(5) says.
uint64_t signals_of(const std::string& status, const std::string& field) {
  const size_t at = status.find("\n" + field);
  return at == std::string::npos
             ? 0
             : std::strtoull(status.c_str() + at + 1 + field.size(), nullptr, 16);
}

constexpr uint64_t bit_of(int signal) { return uint64_t{1} << static_cast<unsigned>(signal - 1); }

constexpr uint64_t kToldToEnd = bit_of(SIGTERM) | bit_of(SIGINT) | bit_of(SIGHUP) | bit_of(SIGQUIT);
// Those whose default is not to end the process (signal(7)).
constexpr uint64_t kHarmless = bit_of(SIGCHLD) | bit_of(SIGURG) | bit_of(SIGWINCH) |
                               bit_of(SIGCONT) | bit_of(SIGSTOP) | bit_of(SIGTSTP) |
                               bit_of(SIGTTIN) | bit_of(SIGTTOU);

// Of those that wait: who is told to end may have a handler or wait for it, the others end one that
// has not.
uint64_t ending_signals(const std::string& status) {
  const uint64_t waiting = (signals_of(status, "SigPnd:") | signals_of(status, "ShdPnd:")) &
                           ~signals_of(status, "SigIgn:");
  const uint64_t unhandled =
      waiting & ~kHarmless & ~signals_of(status, "SigCgt:") & ~signals_of(status, "SigBlk:");
  return (waiting & kToldToEnd) | unhandled;
}

Unexpected no_process(pid_t pid) {
  return fail(ErrorKind::kNotFound, "there is no process " + std::to_string(pid));
}

std::string command_of(pid_t pid) {
  std::string text = content_of("/proc/" + std::to_string(pid) + "/cmdline", kCommandBytes);
  std::ranges::replace(text, char{0}, ' ');
  return printable(text);
}

ProcessIdentity identity_of(pid_t pid, const Stat& stat) {
  return {pid, stat.name, command_of(pid)};
}

// Who has a number: threads have numbers, too.
std::string owner_of(pid_t pid) {
  const std::string status = content_of("/proc/" + std::to_string(pid) + "/status");
  const size_t at = status.find("\nTgid:");
  const pid_t whole = at == std::string::npos
                          ? pid
                          : static_cast<pid_t>(std::strtol(status.c_str() + at + 6, nullptr, 10));
  const auto stat = stat_of(whole);
  std::string command = command_of(pid);
  command.erase(command.find_last_not_of(' ') + 1);  // after the last word
  return stat ? (whole == pid ? stat->name + " (" + command + ")"
                              : "a thread of process " + std::to_string(whole) + ", " + stat->name)
              : "a process that has ended";
}

// One that has become another program's number has ended, too. One that is ending still holds its
// files, while its memory, and with it its command, is gone: looked at before its state.
bool has_ended(const ProcessIdentity& process) {
  const std::string command = command_of(process.pid);
  const auto stat = stat_of(process.pid);
  if (!stat || !is_alive(*stat)) {
    return true;
  }
  const bool is_ending = command.empty() && (stat->flags & kExiting) != 0;
  return stat->name != process.name || (command != process.command && !is_ending);
}

}  // namespace

Result<std::vector<ProcessIdentity>> process_tree(pid_t root) {
  const auto all = all_processes();
  if (!all.contains(root)) {
    return no_process(root);
  }
  std::vector<ProcessIdentity> tree{identity_of(root, all.at(root))};
  for (size_t i = 0; i < tree.size(); ++i) {
    for (const auto& [pid, stat] : all) {
      if (stat.parent == tree[i].pid) {
        tree.push_back(identity_of(pid, stat));
      }
    }
  }
  return tree;
}

bool has_ended_child(pid_t parent) {
  return std::ranges::any_of(all_processes(), [parent](const auto& process) {
    return process.second.parent == parent && !is_alive(process.second);
  });
}

int ending_signal(pid_t root) {
  const auto tree = process_tree(root);
  for (const ProcessIdentity& process : tree ? *tree : std::vector<ProcessIdentity>()) {
    const uint64_t ending =
        ending_signals(content_of("/proc/" + std::to_string(process.pid) + "/status"));
    if (ending != 0) {
      return std::countr_zero(ending) + 1;
    }
  }
  return 0;
}

uint64_t start_of(pid_t pid) {
  const auto stat = stat_of(pid);
  return stat ? stat->start : 0;
}

Result<> check_can_freeze(pid_t root) {
  const auto all = all_processes();
  const auto found = all.find(root);
  if (found == all.end()) {
    return no_process(root);
  }
  const std::string text = "process " + std::to_string(root) + " (" + found->second.name + ")";
  if ((found->second.flags & kKernelThread) != 0) {
    return fail(ErrorKind::kInvalid, text + " is a kernel thread, which CRIU cannot dump");
  }
  if (!is_alive(found->second)) {
    return fail(ErrorKind::kNotFound, text + " has ended");
  }
  for (pid_t pid = getpid(); pid > 0;) {
    if (pid == root) {
      return fail(ErrorKind::kInvalid,
                  text +
                      " is this command itself, or what it was started from: it would be "
                      "frozen, too. Start ckpt-tool from outside that process");
    }
    const auto next = all.find(pid);
    pid = next == all.end() ? 0 : next->second.parent;
  }
  return {};
}

bool has_own_numbers(pid_t pid) {
  std::error_code ended;
  const auto theirs = fs::read_symlink("/proc/" + std::to_string(pid) + "/ns/pid", ended);
  return !ended && theirs != fs::read_symlink("/proc/self/ns/pid", ended);
}

std::vector<ProcessIdentity> living(const std::vector<ProcessIdentity>& processes) {
  std::vector<ProcessIdentity> all;
  for (const ProcessIdentity& process : processes) {
    if (const auto tree = process_tree(process.pid); tree && !has_ended(process)) {
      all.insert(all.end(), tree->begin(), tree->end());
    }
  }
  return all;
}

namespace {

// What is found of them, and found again for a while.
std::optional<ProcessIdentity> stays(
    std::optional<ProcessIdentity> (*find)(const std::vector<ProcessIdentity>&),
    const std::vector<ProcessIdentity>& processes) {
  const SteadyTime deadline = system_clock().steady() + kNoticePatience;
  auto found = find(processes);
  while (found && system_clock().steady() < deadline) {
    std::this_thread::sleep_for(kEndLook);
    found = find(processes);
  }
  return found;
}

// One whose number another has.
std::optional<ProcessIdentity> displaced(const std::vector<ProcessIdentity>& processes) {
  for (const ProcessIdentity& process : processes) {
    const auto stat = stat_of(process.pid);
    if (stat && is_alive(*stat) && has_ended(process)) {
      return process;
    }
  }
  return std::nullopt;
}

}  // namespace

// What a CRIU that was killed has made in their place ends, too, in a moment.
Result<> check_can_end(const std::vector<ProcessIdentity>& processes) {
  if (const auto found = stays(displaced, processes)) {
    return fail(ErrorKind::kBusy, "the number " + std::to_string(found->pid) + " of process " +
                                      found->name + " is now that of another, " +
                                      owner_of(found->pid) + ": end that one first");
  }
  const auto ours = [](const ProcessIdentity& process) { return process.pid == getpid(); };
  if (std::ranges::any_of(living(processes), ours)) {
    return fail(ErrorKind::kBusy,
                "this command was started from one of the processes that it is to end: start it "
                "from elsewhere");
  }
  return {};
}

namespace {

// Those that have ended, and that a parent which will not be ended with them has not waited for.
std::optional<ProcessIdentity> unnoticed(const std::vector<ProcessIdentity>& processes) {
  const auto left = living(processes);
  for (const ProcessIdentity& process : processes) {
    const auto stat = stat_of(process.pid);
    const auto is_parent = [&](const ProcessIdentity& one) { return one.pid == stat->parent; };
    if (stat && !is_alive(*stat) && std::ranges::none_of(left, is_parent)) {
      return process;
    }
  }
  return std::nullopt;
}

}  // namespace

Result<> check_numbers_free(const std::vector<ProcessIdentity>& processes) {
  const auto found = stays(unnoticed, processes);
  if (!found) {
    return {};
  }
  const auto stat = stat_of(found->pid);
  const std::string parent = stat ? std::to_string(stat->parent) : "1";
  return fail(ErrorKind::kBusy, "process " + std::to_string(found->pid) + " (" + found->name +
                                    ") has ended, but keeps its number as long as its parent, "
                                    "process " +
                                    parent + ", " + owner_of(stat ? stat->parent : 1) +
                                    ", does not take notice (wait(2)): end that one");
}

Result<> end_processes(const std::vector<ProcessIdentity>& processes) {
  CKPT_TRY(check_can_end(processes));
  const SteadyTime deadline = system_clock().steady() + kEndPatience;
  // Again until none is left: one may start another just before it is killed.
  for (auto left = living(processes); !left.empty(); left = living(left)) {
    for (const ProcessIdentity& process : left) {
      if (::kill(process.pid, SIGKILL) != 0 && errno != ESRCH) {
        return fail_errno(errno, "end process " + std::to_string(process.pid));
      }
    }
    if (system_clock().steady() >= deadline) {
      return fail(ErrorKind::kBusy, "process " + std::to_string(left.front().pid) + " (" +
                                        left.front().name + ") does not end when it is killed");
    }
    std::this_thread::sleep_for(kEndLook);
  }
  return {};
}

}  // namespace ckpt
