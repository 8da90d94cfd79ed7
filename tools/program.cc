// SPDX-License-Identifier: Apache-2.0
#include "tools/program.h"

#include <fcntl.h>
#include <poll.h>
#include <spawn.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <climits>
#include <csignal>
#include <cstring>
#include <optional>
#include <sstream>
#include <thread>
#include <utility>

#include "common/clock.h"
#include "common/fd.h"
#include "tools/descriptor.h"

namespace ckpt {
namespace {

constexpr std::chrono::milliseconds kLook{5};
// One that waits for a device is gone only when that answers: it is left behind.
constexpr std::chrono::seconds kDeathPatience{1};

bool is_program(const std::string& path) {
  struct stat status {};
  return stat(path.c_str(), &status) == 0 && S_ISREG(status.st_mode) &&
         access(path.c_str(), X_OK) == 0;
}

// A started program; killed at the latest when this ends.
class Child {
 public:
  explicit Child(pid_t pid) : pid_(pid) {}
  Child(const Child&) = delete;
  Child& operator=(const Child&) = delete;
  ~Child() {
    if (pid_ > 0) {
      kill(-pid_, SIGKILL);
      (void)wait_until(system_clock().steady() + kDeathPatience);
    }
  }

  // It may go on.
  pid_t release() { return std::exchange(pid_, 0); }

  // How it ended (wait(2)); nothing: it has not by then.
  std::optional<int> wait_until(SteadyTime deadline) {
    for (;;) {
      int status = 0;
      if (waitpid(pid_, &status, WNOHANG) == pid_) {
        pid_ = 0;
        return status;
      }
      if (system_clock().steady() >= deadline) {
        return std::nullopt;
      }
      std::this_thread::sleep_for(kLook);
    }
  }

 private:
  pid_t pid_;  // of its process group too; 0: it has ended
};

// What posix_spawn(3) is to do: nothing to read, both streams into the pipe, a group of its own.
class SpawnPlan {
 public:
  SpawnPlan(int output, int kept) {
    posix_spawn_file_actions_init(&actions_);
    if (kept >= 0) {  // posix_spawn(3): onto itself, and it is not closed
      posix_spawn_file_actions_adddup2(&actions_, kept, kept);
    }
    posix_spawn_file_actions_addopen(&actions_, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
    posix_spawn_file_actions_adddup2(&actions_, output, STDOUT_FILENO);
    posix_spawn_file_actions_adddup2(&actions_, output, STDERR_FILENO);
    posix_spawnattr_init(&attributes_);
    posix_spawnattr_setflags(&attributes_, POSIX_SPAWN_SETPGROUP);
  }
  SpawnPlan(const SpawnPlan&) = delete;
  SpawnPlan& operator=(const SpawnPlan&) = delete;
  ~SpawnPlan() {
    posix_spawn_file_actions_destroy(&actions_);
    posix_spawnattr_destroy(&attributes_);
  }

  Result<pid_t> spawn(const std::vector<std::string>& words) const {
    const std::vector<char*> arguments = as_arguments(words);
    pid_t pid = 0;
    const int number =
        posix_spawnp(&pid, arguments[0], &actions_, &attributes_, arguments.data(), environ);
    return number == 0 ? Result<pid_t>(pid) : Result<pid_t>(fail_errno(number, "run " + words[0]));
  }

 private:
  posix_spawn_file_actions_t actions_{};
  posix_spawnattr_t attributes_{};
};

// In a forked process: nothing here takes memory or a lock.
[[noreturn]] void be_detached(char* const* arguments, int output) {
  constexpr int kNotExecutable = 127;
  setsid();
  for (const int signal : {SIGTERM, SIGINT, SIGHUP, SIGPIPE}) {
    std::signal(signal, SIG_IGN);
  }
  (void)prctl(PR_SET_IO_FLUSHER, 1, 0, 0, 0);
  const int nothing = ::open("/dev/null", O_RDONLY);
  if (chdir("/") == 0 && dup2(nothing, STDIN_FILENO) >= 0 && dup2(output, STDOUT_FILENO) >= 0 &&
      dup2(output, STDERR_FILENO) >= 0 && close_range(STDERR_FILENO + 1, UINT_MAX, 0) == 0) {
    execv(arguments[0], arguments);
  }
  dprintf(STDERR_FILENO, "%s: %s\n", arguments[0], std::strerror(errno));
  _exit(kNotExecutable);
}

// Whether there is something to read, or the end, before the deadline.
bool is_readable_by(int fd, SteadyTime deadline) {
  pollfd entry{fd, POLLIN, 0};
  int count = 0;
  do {
    const auto left =
        std::chrono::ceil<std::chrono::milliseconds>(deadline - system_clock().steady());
    count = poll(&entry, 1, left.count() > 0 ? static_cast<int>(left.count()) : 0);
  } while (count < 0 && errno == EINTR);
  return count > 0;
}

// All that comes until the end.
Result<std::string> read_all(int fd, SteadyTime deadline) {
  std::string text;
  std::array<char, 4096> buffer;
  while (text.size() <= kOutputBytesMax) {
    if (!is_readable_by(fd, deadline)) {
      return fail(ErrorKind::kTimeout, "it does not end");
    }
    const ssize_t count = ::read(fd, buffer.data(), buffer.size());
    if (count == 0) {
      return text;
    }
    if (count < 0 && errno != EINTR) {
      return fail_errno(errno, "read what it says");
    }
    text.append(buffer.data(), static_cast<size_t>(std::max<ssize_t>(count, 0)));
  }
  return fail(ErrorKind::kIo, "it says more than " + std::to_string(kOutputBytesMax) + " bytes");
}

// nbdkit says what is wrong first, and then how to get help.
std::string first_line(const std::string& text) {
  const std::string line = text.substr(0, text.find('\n'));
  return line.empty() ? "it says nothing" : line;
}

Result<std::string> outcome_of(int status, std::string text) {
  if (WIFEXITED(status) && WEXITSTATUS(status) == 0) {
    return text;
  }
  return fail(ErrorKind::kIo, first_line(text) + " (" + describe_end(status) + ")");
}

// Waits until a started program is ready.
Result<> wait_until_ready(Child& child, int output, const std::function<bool()>& is_ready,
                          SteadyTime deadline) {
  while (!is_ready()) {
    const SteadyTime now = system_clock().steady();
    if (const auto status = child.wait_until(now)) {
      CKPT_ASSIGN(std::string text, read_all(output, now + kDeathPatience));
      CKPT_TRY(outcome_of(*status, std::move(text)));
      return fail(ErrorKind::kIo, "it has ended at once");
    }
    if (now >= deadline) {
      return fail(ErrorKind::kTimeout, "it does not come up");
    }
    std::this_thread::sleep_for(kLook);
  }
  return {};
}

}  // namespace

std::vector<char*> as_arguments(const std::vector<std::string>& words) {
  std::vector<char*> arguments;
  arguments.reserve(words.size() + 1);
  for (const std::string& word : words) {
    arguments.push_back(const_cast<char*>(word.c_str()));  // NOLINT: as execv(3) has it
  }
  arguments.push_back(nullptr);
  return arguments;
}

std::string describe_end(int status) {
  return WIFEXITED(status) ? "exit status " + std::to_string(WEXITSTATUS(status))
                           : "signal " + std::to_string(WTERMSIG(status));
}

std::string find_program(const std::string& name, const std::string& path) {
  std::istringstream folders(path);
  for (std::string folder; std::getline(folders, folder, ':');) {
    std::string program = (folder.empty() ? "." : folder) + "/" + name;
    if (is_program(program)) {
      return program;
    }
  }
  return "";
}

Result<std::string> output_of(const std::vector<std::string>& words,
                              std::chrono::milliseconds timeout, int kept) {
  CKPT_ASSIGN(Pipe pipe, make_pipe());
  const SteadyTime deadline = system_clock().steady() + timeout;
  CKPT_ASSIGN(const pid_t pid, SpawnPlan(pipe.in.get(), kept).spawn(words));
  Child child(pid);
  pipe.in.reset();
  CKPT_ASSIGN(std::string text, read_all(pipe.out.get(), deadline));
  const std::optional<int> status = child.wait_until(deadline);
  return status ? outcome_of(*status, std::move(text))
                : Result<std::string>(fail(ErrorKind::kTimeout, "it does not end"));
}

Result<pid_t> start_detached(const std::vector<std::string>& words,
                             const std::function<bool()>& is_ready,
                             std::chrono::milliseconds timeout) {
  const SteadyTime deadline = system_clock().steady() + timeout;
  const std::vector<char*> arguments = as_arguments(words);
  CKPT_ASSIGN(Pipe pipe, make_pipe());
  const pid_t pid = ::fork();
  if (pid == 0) {
    be_detached(arguments.data(), pipe.in.get());
  }
  if (pid < 0) {
    return fail_errno(errno, "run " + words.front());
  }
  pipe.in.reset();
  Child child(pid);
  CKPT_TRY(wait_until_ready(child, pipe.out.get(), is_ready, deadline));
  return child.release();
}

std::string shell_line(const std::vector<std::string>& words) {
  constexpr const char* kPlain =
      "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-+=:,./@%";
  std::string line;
  for (const std::string& word : words) {
    std::string quoted = word;
    if (word.empty() || word.find_first_not_of(kPlain) != std::string::npos) {
      quoted = "'";
      for (const char letter : word) {
        quoted += letter == '\'' ? "'\\''" : std::string(1, letter);
      }
      quoted += "'";
    }
    line += (line.empty() ? "" : " ") + quoted;
  }
  return line;
}

}  // namespace ckpt
