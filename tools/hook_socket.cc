// SPDX-License-Identifier: Apache-2.0
#include "tools/hook_socket.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <fstream>

#include "tools/local_socket.h"
#include "tools/program.h"

namespace ckpt {
namespace {

constexpr size_t kLineBytesMax = 4096;

// Up to its newline, or the end.
std::string read_line(int fd) {
  std::string line;
  char next = 0;
  while (line.size() < kLineBytesMax) {
    const ssize_t count = ::read(fd, &next, 1);
    if (count < 0 && errno == EINTR) {
      continue;
    }
    if (count <= 0 || next == '\n') {
      break;
    }
    line += next;
  }
  return line;
}

bool write_line(int fd, const std::string& text) {
  const std::string line = text + "\n";
  // A line of this size fits into an empty socket.
  return ::send(fd, line.data(), line.size(), MSG_NOSIGNAL) == static_cast<ssize_t>(line.size());
}

// This very program, also when its file was replaced by that of another version meanwhile.
Result<> write_script(const std::string& path, const std::string& socket) {
  const std::string tool = "/proc/" + std::to_string(getpid()) + "/exe";
  std::ofstream script(path);
  script << "#!/bin/sh\nexec " << shell_line({tool, "hook", "criu", "--socket", socket}) << "\n";
  script.close();
  if (!script || ::chmod(path.c_str(), 0700) != 0) {
    return fail_errno(errno, "write " + path);
  }
  return {};
}

}  // namespace

void HookCall::answer(const Result<>& outcome) {
  // One that is gone has failed anyway.
  (void)write_line(fd_.get(),
                   outcome ? "ok" : outcome.error().message().substr(0, kLineBytesMax - 1));
  fd_.reset();
}

Result<HookSocket> HookSocket::make() {
  CKPT_ASSIGN(WorkFolder folder, WorkFolder::make(short_base(), "ckpt-hook"));
  HookSocket hook(std::move(folder));
  const std::string socket = hook.folder_.path() + "/socket";
  CKPT_ASSIGN(hook.listening_, listen_local(socket));
  CKPT_TRY(write_script(hook.script(), socket));
  return hook;
}

std::optional<HookCall> HookSocket::next(int milliseconds) {
  pollfd entry{listening_.get(), POLLIN, 0};
  if (::poll(&entry, 1, milliseconds) <= 0) {
    return std::nullopt;
  }
  UniqueFd fd(::accept4(listening_.get(), nullptr, nullptr, SOCK_CLOEXEC));
  if (!fd) {
    return std::nullopt;
  }
  std::string action = read_line(fd.get());
  return HookCall(std::move(action), std::move(fd));
}

Result<> call_hook(const std::string& socket, const std::string& action) {
  const auto fd = connect_local(socket);
  if (!fd) {
    return within("call the command that started CRIU", fd.error());
  }
  const std::string answer = write_line(fd->get(), action) ? read_line(fd->get()) : "";
  if (answer == "ok") {
    return {};
  }
  return fail(ErrorKind::kVoid, answer.empty() ? "the command that started CRIU is gone" : answer);
}

}  // namespace ckpt
