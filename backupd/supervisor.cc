// SPDX-License-Identifier: Apache-2.0
#include "backupd/supervisor.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstdlib>
#include <optional>
#include <string_view>

namespace ckpt {
namespace {

constexpr int kFirstInherited = 3;   // sd_listen_fds(3), SD_LISTEN_FDS_START
constexpr int kInheritedMax = 1024;  // more than any configuration

// A number from the environment; nothing: it is not there, or none.
std::optional<int> number_from(const char* name) {
  const char* const text = std::getenv(name);
  if (text == nullptr) {
    return std::nullopt;
  }
  const std::string_view all(text);
  int number = 0;
  const auto read = std::from_chars(all.data(), all.data() + all.size(), number);
  return read.ec == std::errc() && read.ptr == all.data() + all.size() ? std::optional(number)
                                                                       : std::nullopt;
}

// What a socket says of itself (socket(7)); 0: it is none.
int option_of(int fd, int option) {
  int value = 0;
  socklen_t length = sizeof(value);
  return getsockopt(fd, SOL_SOCKET, option, &value, &length) == 0 ? value : 0;
}

Result<> check_listener(int fd) {
  if (option_of(fd, SO_ACCEPTCONN) == 0 || option_of(fd, SO_TYPE) != SOCK_STREAM) {
    return fail(ErrorKind::kInvalid,
                "descriptor " + std::to_string(fd) +
                    ", which this was started with, is no stream socket that listens: "
                    "let the service manager make one (ListenStream=)");
  }
  (void)fcntl(fd, F_SETFD, FD_CLOEXEC);
  (void)fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
  return {};
}

}  // namespace

void tell_supervisor(const std::string& state) {
  const char* const text = std::getenv("NOTIFY_SOCKET");
  sockaddr_un name{};
  const std::string path = text == nullptr ? "" : text;
  if (path.size() < 2 || path.size() >= sizeof(name.sun_path)) {
    return;
  }
  name.sun_family = AF_UNIX;
  path.copy(name.sun_path, path.size());
  if (path.front() == '@') {
    name.sun_path[0] = '\0';  // an abstract one, unix(7)
  }
  const UniqueFd fd(::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  const auto length = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + path.size());
  // Whoever does not listen need not know.
  (void)::sendto(fd.get(), state.data(), state.size(), MSG_NOSIGNAL,
                 static_cast<const sockaddr*>(static_cast<const void*>(&name)), length);
}

Result<std::vector<UniqueFd>> inherited_listeners(Reach reach) {
  std::vector<UniqueFd> listeners;
  const auto process = number_from("LISTEN_PID");
  const auto count = number_from("LISTEN_FDS");
  if (!count || process != ::getpid()) {
    return listeners;
  }
  for (int i = 0; i < std::clamp(*count, 0, kInheritedMax); ++i) {
    CKPT_TRY(check_listener(kFirstInherited + i));
    CKPT_TRY(check_bound(kFirstInherited + i, reach));
    listeners.emplace_back(kFirstInherited + i);
  }
  return listeners;
}

}  // namespace ckpt
