// SPDX-License-Identifier: Apache-2.0
#include "tools/guarded_program.h"

#include <fcntl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <climits>
#include <csignal>
#include <thread>
#include <utility>

#include "common/clock.h"

namespace ckpt {
namespace {

constexpr std::chrono::milliseconds kLook{10};
constexpr std::chrono::seconds kEndPatience{5};
constexpr char kWord = 1;

// Two ends, of which neither is any other program's.
struct GuardPipe {
  UniqueFd out;
  UniqueFd in;
};

Result<GuardPipe> make_guard_pipe() {
  std::array<int, 2> ends{};
  return ::pipe2(ends.data(), O_CLOEXEC) == 0
             ? Result<GuardPipe>(GuardPipe{UniqueFd(ends[0]), UniqueFd(ends[1])})
             : Result<GuardPipe>(fail_errno(errno, "pipe"));
}

// What a forked process needs of this one. Nothing there takes memory or a lock.
struct Launch {
  char* const* words;
  const char* folder;  // nullptr: where it is
  int log;
  int gate;  // it waits for a word here: there is a guard, then
  int told;  // why it cannot be run
};

bool hears_word(int fd) {
  char word = 0;
  ssize_t count = 0;
  do {
    count = ::read(fd, &word, 1);
  } while (count < 0 && errno == EINTR);
  return count == 1;
}

[[noreturn]] void become_program(const Launch& launch) {
  if (!hears_word(launch.gate)) {
    ::_exit(1);
  }
  sigset_t none;
  sigemptyset(&none);
  ::sigprocmask(SIG_SETMASK, &none, nullptr);
  std::signal(SIGPIPE, SIG_DFL);
  ::setsid();
  const int nothing = ::open("/dev/null", O_RDONLY);
  if ((launch.folder == nullptr || ::chdir(launch.folder) == 0) &&
      ::dup2(nothing, STDIN_FILENO) >= 0 && ::dup2(launch.log, STDOUT_FILENO) >= 0 &&
      ::dup2(launch.log, STDERR_FILENO) >= 0) {
    ::execvp(launch.words[0], launch.words);
  }
  const int why = errno;
  (void)!::write(launch.told, &why, sizeof(why));
  ::_exit(1);
}

// What ends a terminal or a service as a whole does not end the guard first.
[[noreturn]] void become_guard(int lifeline, int program) {
  ::setsid();
  for (const int signal : {SIGTERM, SIGINT, SIGHUP}) {
    std::signal(signal, SIG_IGN);
  }
  if (::dup2(lifeline, STDIN_FILENO) < 0 || ::dup2(program, STDOUT_FILENO) < 0 ||
      ::close_range(STDERR_FILENO, UINT_MAX, 0) != 0 || !hears_word(STDIN_FILENO)) {
    (void)::syscall(SYS_pidfd_send_signal, STDOUT_FILENO, SIGKILL, nullptr, 0);
  }
  ::_exit(0);
}

Result<pid_t> fork_guard(pid_t program, int lifeline) {
  // By a call: the C library's header of it is no C++ before 2.37.
  const UniqueFd identity(static_cast<int>(::syscall(SYS_pidfd_open, program, 0)));
  if (!identity) {
    return fail_errno(errno, "pidfd_open");
  }
  const pid_t guard = ::fork();
  if (guard == 0) {
    become_guard(lifeline, identity.get());
  }
  return guard > 0 ? Result<pid_t>(guard) : Result<pid_t>(fail_errno(errno, "fork"));
}

// Nothing was said: it runs.
Result<> hear_why(int told, const std::string& program) {
  int why = 0;
  ssize_t count = 0;
  do {
    count = ::read(told, &why, sizeof(why));
  } while (count < 0 && errno == EINTR);
  return count == 0 ? Result<>() : Result<>(fail_errno(why, "run " + program));
}

std::vector<char*> arguments_of(const std::vector<std::string>& words) {
  std::vector<char*> arguments;
  for (const std::string& word : words) {
    arguments.push_back(const_cast<char*>(word.c_str()));  // NOLINT: as execvp(3) has it
  }
  arguments.push_back(nullptr);
  return arguments;
}

}  // namespace

Result<std::unique_ptr<GuardedProgram>> GuardedProgram::start(const std::vector<std::string>& words,
                                                              const std::string& folder,
                                                              const std::string& log) {
  const UniqueFd output(
      ::open(log.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_NOFOLLOW | O_CLOEXEC, 0600));
  if (!output) {
    return fail_errno(errno, "open " + log);
  }
  CKPT_ASSIGN(GuardPipe gate, make_guard_pipe());
  CKPT_ASSIGN(GuardPipe told, make_guard_pipe());
  const std::vector<char*> arguments = arguments_of(words);
  const Launch launch{arguments.data(), folder.empty() ? nullptr : folder.c_str(), output.get(),
                      gate.out.get(), told.in.get()};
  const pid_t pid = ::fork();
  if (pid == 0) {
    gate.in.reset();  // else it would wait for itself
    become_program(launch);
  }
  if (pid < 0) {
    return fail_errno(errno, "run " + words.front());
  }
  CKPT_ASSIGN(GuardPipe lifeline, make_guard_pipe());
  CKPT_ASSIGN(const pid_t guard, fork_guard(pid, lifeline.out.get()));
  std::unique_ptr<GuardedProgram> program(new GuardedProgram(pid, guard, std::move(lifeline.in)));
  told.in.reset();
  (void)!::write(gate.in.get(), &kWord, 1);
  CKPT_TRY(hear_why(told.out.get(), words.front()));
  return program;
}

GuardedProgram::~GuardedProgram() {
  if (program_ > 0) {
    ::kill(program_, SIGKILL);
    (void)ends_within(kEndPatience);
  }
  dismiss_guard();
}

bool GuardedProgram::ends_within(std::chrono::nanoseconds patience) {
  const SteadyTime deadline = system_clock().steady() + patience;
  while (program_ > 0 && ::waitpid(program_, nullptr, WNOHANG) != program_) {
    if (system_clock().steady() >= deadline) {
      return false;
    }
    std::this_thread::sleep_for(kLook);
  }
  program_ = 0;
  return true;
}

pid_t GuardedProgram::release() {
  (void)!::write(lifeline_.get(), &kWord, 1);
  dismiss_guard();
  return std::exchange(program_, 0);
}

// Without the word it kills what has ended already: nothing.
void GuardedProgram::dismiss_guard() {
  lifeline_.reset();
  if (guard_ > 0) {
    (void)::waitpid(std::exchange(guard_, 0), nullptr, 0);
  }
}

}  // namespace ckpt
