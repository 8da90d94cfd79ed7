// SPDX-License-Identifier: Apache-2.0
#include "tools/child_program.h"

#include <fcntl.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <thread>

#include "common/clock.h"
#include "tools/program.h"

namespace ckpt {
namespace {

constexpr std::chrono::milliseconds kChildLook{10};
constexpr std::chrono::seconds kChildKillPatience{10};

}  // namespace

Result<ChildProgram> ChildProgram::start(const std::vector<std::string>& words) {
  posix_spawn_file_actions_t actions{};
  posix_spawnattr_t attributes{};
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
  posix_spawnattr_init(&attributes);
  sigset_t usual;  // what this process ignores is none of its business
  sigemptyset(&usual);
  sigaddset(&usual, SIGPIPE);
  posix_spawnattr_setsigdefault(&attributes, &usual);
  posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETPGROUP | POSIX_SPAWN_SETSIGDEF);
  const std::vector<char*> arguments = as_arguments(words);
  pid_t pid = 0;
  const int number =
      posix_spawnp(&pid, arguments[0], &actions, &attributes, arguments.data(), environ);
  posix_spawn_file_actions_destroy(&actions);
  posix_spawnattr_destroy(&attributes);
  return number == 0 ? Result<ChildProgram>(ChildProgram(pid))
                     : Result<ChildProgram>(fail_errno(number, "run " + words[0]));
}

std::optional<int> ChildProgram::ended() {
  int status = 0;
  if (!status_ && pid_ > 0 && ::waitpid(pid_, &status, WNOHANG) == pid_) {
    status_ = status;
  }
  return status_;
}

bool ChildProgram::ends_within(std::chrono::nanoseconds patience) {
  const SteadyTime deadline = system_clock().steady() + patience;
  while (!ended()) {
    if (system_clock().steady() >= deadline) {
      return false;
    }
    std::this_thread::sleep_for(kChildLook);
  }
  return true;
}

void ChildProgram::end(std::chrono::nanoseconds patience) {
  if (ended()) {
    return;
  }
  ::kill(-pid_, SIGTERM);
  if (!ends_within(patience)) {
    ::kill(-pid_, SIGKILL);
    // One that waits for a device is gone only when that answers: it is left behind.
    (void)ends_within(kChildKillPatience);
  }
}

}  // namespace ckpt
