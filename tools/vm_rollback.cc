// SPDX-License-Identifier: Apache-2.0
#include "tools/vm_rollback.h"

#include "common/clock.h"
#include "common/text.h"
#include "tools/guarded_program.h"
#include "tools/text_file.h"
#include "tools/work_folder.h"

namespace ckpt {
namespace {

constexpr std::chrono::seconds kStartPatience{30};
constexpr std::chrono::milliseconds kStartLook{20};

std::string number_of(const SavedMachine& saved) {
  return std::to_string(saved.target().id.number.value);
}

// It may run where somebody else has told it to, and writes to a disk that is not that of its
// memory.
Result<> make_stand_still(VirtualMachine& machine) {
  CKPT_ASSIGN(const std::string state, machine.state());
  return state == "running" ? machine.stop() : Result<>();
}

Unexpected stopped_half_way(VirtualMachine& machine, const SavedMachine& saved,
                            const Error& error) {
  const std::string what =
      "Its disk and its memory are not both those of checkpoint " + number_of(saved) + ": ";
  const auto stands = make_stand_still(machine);
  return stands ? fail(ErrorKind::kHalfway,
                       error.message() + ". The machine stands still and must not go on. " + what +
                           "repeat the command; or end QEMU, and roll back with --fresh")
                : fail(ErrorKind::kHalfway, error.message() + ". " + what +
                                                "end QEMU, if it has not ended, and roll back with "
                                                "--fresh");
}

// When disk and memory have gone back.
Unexpected does_not_go_on(const SavedMachine& saved, const Error& error) {
  return fail(ErrorKind::kHalfway,
              error.message() + ". Disk and memory are those of checkpoint " + number_of(saved) +
                  (error.kind == ErrorKind::kNotFound
                       ? ", and the machine has ended: --fresh starts a new one"
                       : ": `cont` lets the machine run"));
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

// A QEMU that was just started. It ends with this, unless it was released.
class NewMachine {
 public:
  static Result<std::unique_ptr<NewMachine>> start(const VmStart& start) {
    CKPT_ASSIGN(WorkFolder folder, WorkFolder::make(short_base(), kMonitorFolder));
    const std::string socket = folder.path() + "/qmp";
    std::vector<std::string> words = words_for_new(start.words);
    words.insert(words.end(),
                 {"-S", "-incoming", "defer", "-qmp", "unix:" + socket + ",server=on,wait=off"});
    CKPT_ASSIGN(auto program, GuardedProgram::start(words, start.directory, start.log));
    std::unique_ptr<NewMachine> machine(
        new NewMachine(std::move(folder), std::move(program), start.log));
    CKPT_TRY(machine->connect(socket));
    return machine;
  }

  VirtualMachine& machine() { return *machine_; }
  pid_t release() { return program_->release(); }
  // With what QEMU has said, if it has ended.
  Unexpected explain(const Error& error) {
    return program_->ends_within(kStartLook)
               ? fail(error.kind, "QEMU has ended: " + printable(last_line_of(log_)))
               : Unexpected(error);
  }

 private:
  NewMachine(WorkFolder folder, std::unique_ptr<GuardedProgram> program, std::string log)
      : folder_(std::move(folder)), program_(std::move(program)), log_(std::move(log)) {}

  Result<> connect(const std::string& socket) {
    const SteadyTime deadline = system_clock().steady() + kStartPatience;
    for (;;) {
      auto port = QmpSocket::connect(socket);
      if (port) {
        port_ = std::move(*port);
        machine_.emplace(*port_);
        return {};
      }
      if (program_->ends_within(kStartLook)) {
        return fail(ErrorKind::kIo, "QEMU does not start: " + printable(last_line_of(log_)));
      }
      if (system_clock().steady() >= deadline) {
        return within("QEMU does not come up", port.error());
      }
    }
  }

  WorkFolder folder_;
  std::unique_ptr<GuardedProgram> program_;
  const std::string log_;
  std::unique_ptr<QmpSocket> port_;
  std::optional<VirtualMachine> machine_;
};

// Its disks have not gone back. One that has ended is not half-way.
Unexpected as_it_was(VirtualMachine& machine, const std::string& before, const Error& error) {
  auto done = machine.unmark();
  if (done && before == "running") {
    done = machine.go_on();
  }
  return done || done.error().kind == ErrorKind::kNotFound
             ? Unexpected(error)
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
  if (const auto stopped = machine.stop(); !stopped) {
    return as_it_was(machine, before, stopped.error());
  }
  auto disk = saved.roll_back(progress);
  if (!disk && nothing_was_done(disk.error().kind)) {
    return as_it_was(machine, before, disk.error());
  }
  if (!disk) {
    return stopped_half_way(machine, saved, disk.error());
  }
  const SteadyTime back = system_clock().steady();
  if (const auto loaded = load_in_place(machine, saved, before); !loaded) {
    return stopped_half_way(machine, saved, loaded.error());
  }
  const SteadyTime loaded = system_clock().steady();
  if (const auto runs_on = runs ? machine.go_on() : Result<>(); !runs_on) {
    return does_not_go_on(saved, runs_on.error());
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
