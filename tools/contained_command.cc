// SPDX-License-Identifier: Apache-2.0
#include "tools/contained_command.h"

#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <climits>
#include <cstdlib>
#include <cstring>

#include "common/fd.h"
#include "tools/descriptor.h"
#include "tools/program.h"

namespace ckpt {
namespace {

constexpr int kSignalCode = 128;  // as shells count
constexpr int kNotExecuted = 127;
constexpr std::array kPassedOn{SIGTERM, SIGINT, SIGHUP, SIGQUIT, SIGUSR1, SIGUSR2};

int exit_code_of(int wait_status) {
  return WIFSIGNALED(wait_status) ? kSignalCode + WTERMSIG(wait_status) : WEXITSTATUS(wait_status);
}

sigset_t waited_for() {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGCHLD);
  for (const int signal : kPassedOn) {
    sigaddset(&set, signal);
  }
  return set;
}

[[noreturn]] void execute(const ContainedCommand& command, const sigset_t& mask) {
  const std::vector<char*> words = as_arguments(command.words);
  sigprocmask(SIG_SETMASK, &mask, nullptr);
  execvp(words[0], words.data());
  dprintf(STDERR_FILENO, "%s: %s\n", words[0], std::strerror(errno));
  _exit(kNotExecuted);
}

// Process 1 of the namespace: the kernel ends all others with it.
[[noreturn]] void look_after(pid_t command, const sigset_t& waited) {
  for (;;) {
    siginfo_t info{};
    const int signal = sigwaitinfo(&waited, &info);
    if (signal > 0 && signal != SIGCHLD) {
      ::kill(command, signal);
    }
    if (const auto code = reap(command)) {
      _exit(*code);
    }
  }
}

// In this namespace only: it is private. Some may have gone meanwhile.
bool take_away(const std::vector<std::string>& mounts) {
  return std::all_of(mounts.begin(), mounts.end(), [](const std::string& point) {
    return ::umount2(point.c_str(), MNT_DETACH | UMOUNT_NOFOLLOW) == 0 || errno == EINVAL ||
           errno == ENOENT;
  });
}

// Whoever asks is in a mount namespace of its own.
bool keep_mounts_here() { return ::mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) == 0; }

bool mount_own_proc() {
  return ::mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, nullptr) == 0;
}

// A session without a terminal, its own /proc, and nothing that this process has open.
bool separate(const ContainedCommand& command, int log) {
  const int empty = ::open("/dev/null", O_RDONLY);
  return setsid() > 0 && keep_mounts_here() && take_away(command.unseen) && mount_own_proc() &&
         dup2(empty, STDIN_FILENO) >= 0 && dup2(log, STDOUT_FILENO) >= 0 &&
         dup2(log, STDERR_FILENO) >= 0 && setenv("CKPT_CONTROL", command.control.c_str(), 1) == 0 &&
         close_range(STDERR_FILENO + 1, UINT_MAX, 0) == 0;
}

[[noreturn]] void be_first(const ContainedCommand& command, int log, int told) {
  if (!separate(command, log)) {
    const int why = -errno;
    (void)!::write(told, &why, sizeof(why));
    _exit(kNotExecuted);
  }
  const sigset_t waited = waited_for();
  sigset_t before;
  sigprocmask(SIG_BLOCK, &waited, &before);
  const pid_t pid = ::fork();
  if (pid == 0) {
    execute(command, before);
  }
  if (pid < 0) {
    _exit(kNotExecuted);
  }
  look_after(pid, waited);
}

// In a process between the two, since namespaces are those of children to come. It tells the number
// of the first one, or why there is none.
[[noreturn]] void start_first(const ContainedCommand& command, int log, int told) {
  int pid = ::unshare(CLONE_NEWPID | CLONE_NEWNS) == 0 ? ::fork() : -1;
  if (pid == 0) {
    be_first(command, log, told);
  }
  pid = pid < 0 ? -errno : pid;
  (void)!::write(told, &pid, sizeof(pid));
  _exit(0);
}

// The exit code of a child, which is an errno; 0: all is well.
int failure_of(pid_t child) {
  int status = 0;
  pid_t ended = 0;
  do {
    ended = child > 0 ? ::waitpid(child, &status, 0) : -1;
  } while (ended < 0 && errno == EINTR);
  return ended != child ? errno : WIFEXITED(status) ? WEXITSTATUS(status) : EPERM;
}

[[noreturn]] void try_namespaces() {
  if (::unshare(CLONE_NEWPID | CLONE_NEWNS) != 0) {
    _exit(errno);
  }
  const pid_t first = ::fork();
  if (first == 0) {
    _exit(keep_mounts_here() && mount_own_proc() ? 0 : errno);
  }
  _exit(failure_of(first));
}

}  // namespace

std::vector<std::string> contained_options() {
  return {"--external", "mnt[]:ms", "--root", "/", "--file-locks"};
}

Result<> adopt_orphans() {
  return prctl(PR_SET_CHILD_SUBREAPER, 1) == 0
             ? Result<>()
             : Result<>(fail_errno(errno, "prctl PR_SET_CHILD_SUBREAPER"));
}

Result<> check_can_contain() {
  const pid_t child = ::fork();
  if (child == 0) {
    try_namespaces();
  }
  const int failure = failure_of(child);
  return failure == 0 ? Result<>()
                      : Result<>(fail_errno(failure, "PID and mount namespaces with their /proc"));
}

Result<pid_t> start_contained(const ContainedCommand& command) {
  const UniqueFd log(
      ::open(command.log.c_str(), O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NOCTTY, 0600));
  if (!log) {
    return fail_errno(errno, "open " + command.log);
  }
  CKPT_ASSIGN(Pipe pipe, make_pipe());
  const pid_t between = ::fork();
  if (between == 0) {
    start_first(command, log.get(), pipe.in.get());
  }
  pipe.in.reset();
  int pid = 0;
  int failure = 0;
  // Until no process has the pipe any more: the first one tells only what fails.
  for (;;) {
    int next = 0;
    const ssize_t count = ::read(pipe.out.get(), &next, sizeof(next));
    if (count < 0 && errno == EINTR) {
      continue;
    }
    if (count != sizeof(next)) {
      break;
    }
    (next > 0 ? pid : failure) = next;
  }
  if (between > 0) {
    ::waitpid(between, nullptr, 0);
  }
  if (pid > 0 && failure == 0) {
    return pid;
  }
  return fail_errno(failure != 0 ? -failure : EAGAIN,
                    "make PID and mount namespaces for " + command.words.front());
}

std::optional<int> reap(pid_t child) {
  std::optional<int> code;
  int status = 0;
  for (pid_t ended = 0; (ended = waitpid(-1, &status, WNOHANG)) > 0;) {
    if (ended == child) {
      code = exit_code_of(status);
    }
  }
  return code;
}

std::string how_it_ended(int exit_code) {
  constexpr int kSignalMax = 64;
  if (exit_code > kSignalCode && exit_code <= kSignalCode + kSignalMax) {
    return "was killed by signal " + std::to_string(exit_code - kSignalCode);
  }
  return "ended with exit code " + std::to_string(exit_code);
}

}  // namespace ckpt
