// SPDX-License-Identifier: Apache-2.0
#include "tools/vm_rollback.h"

#include <sys/wait.h>

#include <csignal>
#include <thread>

#include "common/clock.h"
#include "common/text.h"
#include "tools/program.h"
#include "tools/text_file.h"
#include "tools/work_folder.h"

namespace ckpt {
namespace {

constexpr std::chrono::seconds kStartPatience{30};
constexpr std::chrono::milliseconds kStartLook{20};
constexpr std::chrono::seconds kEndPatience{5};

std::string number_of(const SavedMachine& saved) {
  return std::to_string(saved.target().id.number.value);
}

Unexpected stands_still(const SavedMachine& saved, const std::string& what, const Error& error) {
  return fail(ErrorKind::kHalfway,
              error.message() + ". The machine stands still and must not go on: " + what +
                  " checkpoint " + number_of(saved) +
                  ". Repeat the command; or end QEMU, and roll back with --fresh");
}

// States in which QEMU refuses to go on without it.
bool needs_reset(const std::string& state) {
  return state == "shutdown" || state == "internal-error";
}

bool nothing_was_done(ErrorKind kind) {
  return kind == ErrorKind::kBusy || kind == ErrorKind::kNotFound || kind == ErrorKind::kInvalid ||
         kind == ErrorKind::kVoid || kind == ErrorKind::kUnreachable;
}

std::string last_line_of(const std::string& log) {
  std::string text = content_of(log);
  while (text.ends_with('\n')) {
    text.pop_back();
  }
  return text.substr(text.rfind('\n') + 1);
}

// A QEMU that was just started. Killed at the latest with this, unless it was released.
class NewMachine {
 public:
  static Result<std::unique_ptr<NewMachine>> start(const VmStart& start) {
    CKPT_ASSIGN(WorkFolder folder, WorkFolder::make(short_base(), kMonitorFolder));
    const std::string socket = folder.path() + "/qmp";
    std::vector<std::string> words = words_for_new(start.words);
    words.insert(words.end(),
                 {"-S", "-incoming", "defer", "-qmp", "unix:" + socket + ",server=on,wait=off"});
    CKPT_ASSIGN(const pid_t pid, start_in_session(words, start.directory, start.log));
    std::unique_ptr<NewMachine> machine(new NewMachine(std::move(folder), pid, start.log));
    CKPT_TRY(machine->connect(socket));
    return machine;
  }
  NewMachine(const NewMachine&) = delete;
  NewMachine& operator=(const NewMachine&) = delete;
  ~NewMachine() {
    if (pid_ > 0) {
      ::kill(pid_, SIGKILL);
      (void)ends_within(kEndPatience);
    }
  }

  VirtualMachine& machine() { return *machine_; }
  pid_t release() { return std::exchange(pid_, 0); }
  // With what QEMU has said, if it has ended.
  Unexpected explain(const Error& error) {
    return ends_within(kStartLook)
               ? fail(error.kind, "QEMU has ended: " + printable(last_line_of(log_)))
               : Unexpected(error);
  }

 private:
  NewMachine(WorkFolder folder, pid_t pid, std::string log)
      : folder_(std::move(folder)), pid_(pid), log_(std::move(log)) {}

  Result<> connect(const std::string& socket) {
    const SteadyTime deadline = system_clock().steady() + kStartPatience;
    for (;;) {
      auto port = QmpSocket::connect(socket);
      if (port) {
        port_ = std::move(*port);
        machine_.emplace(*port_);
        return {};
      }
      if (ends_within(kStartLook)) {
        return fail(ErrorKind::kIo, "QEMU does not start: " + printable(last_line_of(log_)));
      }
      if (system_clock().steady() >= deadline) {
        return within("QEMU does not come up", port.error());
      }
    }
  }

  bool ends_within(std::chrono::nanoseconds patience) {
    const SteadyTime deadline = system_clock().steady() + patience;
    while (pid_ > 0 && ::waitpid(pid_, nullptr, WNOHANG) != pid_) {
      if (system_clock().steady() >= deadline) {
        return false;
      }
      std::this_thread::sleep_for(kStartLook);
    }
    pid_ = 0;
    return true;
  }

  WorkFolder folder_;
  pid_t pid_;
  const std::string log_;
  std::unique_ptr<QmpSocket> port_;
  std::optional<VirtualMachine> machine_;
};

// Its disks have not gone back.
Unexpected as_it_was(VirtualMachine& machine, const std::string& before, const Error& error) {
  auto done = machine.unmark();
  if (done && before == "running") {
    done = machine.go_on();
  }
  return done ? Unexpected(error)
              : fail(ErrorKind::kHalfway, error.message() + ". Nothing has gone back, and the " +
                                              "machine stands still: " + done.error().message());
}

// When the disks have gone back.
Result<> load_in_place(VirtualMachine& machine, const SavedMachine& saved,
                       const std::string& before) {
  CKPT_TRY(needs_reset(before) ? machine.reset() : Result<>());
  CKPT_TRY(machine.load(saved.memory().fd()));
  return machine.unmark();
}

Result<> load_into_new(VirtualMachine& machine, const SavedMachine& saved, bool runs) {
  CKPT_TRY(saved.memory().rewind());
  CKPT_TRY(machine.receive(saved.memory().fd()));
  return runs ? machine.go_on() : Result<>();
}

}  // namespace

Result<VmRollbackOutcome> roll_back_in_place(VirtualMachine& machine, SavedMachine& saved,
                                             bool runs, const Progress& progress) {
  CKPT_ASSIGN(const std::string before, machine.state());
  CKPT_TRY(machine.mark());
  const SteadyTime began = system_clock().steady();
  CKPT_TRY(machine.stop());
  auto disk = saved.roll_back(progress);
  if (!disk && nothing_was_done(disk.error().kind)) {
    return as_it_was(machine, before, disk.error());
  }
  if (!disk) {
    return stands_still(saved, "its disk may not be that of", disk.error());
  }
  const SteadyTime back = system_clock().steady();
  if (const auto loaded = load_in_place(machine, saved, before); !loaded) {
    return stands_still(saved, "its disk is that of, and its memory is not that of,",
                        loaded.error());
  }
  const SteadyTime loaded = system_clock().steady();
  if (const auto runs_on = runs ? machine.go_on() : Result<>(); !runs_on) {
    return fail(ErrorKind::kHalfway, runs_on.error().message() +
                                         ". Disk and memory are those of checkpoint " +
                                         number_of(saved) + ": `cont` lets the machine run");
  }
  return VmRollbackOutcome{std::move(*disk), system_clock().steady() - began, loaded - back};
}

Result<VmRollbackOutcome> roll_back_into_new(const VmStart& start, SavedMachine& saved, bool runs,
                                             const Progress& progress) {
  CKPT_ASSIGN(const auto fresh, NewMachine::start(start));
  CKPT_TRY(saved.check_machine(fresh->machine()));
  CKPT_ASSIGN(auto disk, saved.roll_back(progress));
  const SteadyTime back = system_clock().steady();
  if (const auto loaded = load_into_new(fresh->machine(), saved, runs); !loaded) {
    return fail(ErrorKind::kHalfway,
                fresh->explain(loaded.error()).error().message() +
                    ". The disk is that of checkpoint " + number_of(saved) +
                    ", and no machine runs: the same command once more goes on");
  }
  VmRollbackOutcome outcome{std::move(disk)};
  outcome.memory = system_clock().steady() - back;
  outcome.pid = fresh->release();
  return outcome;
}

}  // namespace ckpt
