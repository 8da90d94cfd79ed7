// SPDX-License-Identifier: Apache-2.0
#include "plugin/control_socket.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/un.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>

namespace ckpt {
namespace {

using SteadyClock = std::chrono::steady_clock;

// A connection may have to wait while the server is busy with others; one that is stopped never
// answers.
constexpr timeval kConnectTimeout{10, 0};
// Connections that wait to be accepted; the server accepts at once, whatever it works on.
constexpr int kBacklog = 64;
constexpr size_t kReceiveBytes = 16384;

std::string path_of(const std::string& state_path) { return state_path + "/" + kControlSocketName; }

// sun_path holds 108 bytes only. A longer path goes through the open directory.
struct SocketAddress {
  UniqueFd directory;
  sockaddr_un name{};
  [[nodiscard]] const sockaddr* get() const {
    // The one cast that the socket interface is made for.
    return reinterpret_cast<const sockaddr*>(&name);
  }
};

Result<SocketAddress> address_of(const std::string& state_path) {
  SocketAddress address;
  address.name.sun_family = AF_UNIX;
  std::string path = path_of(state_path);
  if (path.size() >= sizeof(address.name.sun_path)) {
    address.directory.reset(::open(state_path.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
    if (!address.directory) {
      return fail_errno(errno, "open " + state_path);
    }
    path = path_of("/proc/self/fd/" + std::to_string(address.directory.get()));
  }
  std::memcpy(address.name.sun_path, path.c_str(), path.size() + 1);
  return address;
}

Result<UniqueFd> new_socket(const std::string& state_path) {
  UniqueFd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (!fd) {
    return fail_errno(errno, "socket for " + path_of(state_path));
  }
  return fd;
}

Result<UniqueFd> connect_control(const std::string& state_path) {
  CKPT_ASSIGN(const SocketAddress address, address_of(state_path));
  CKPT_ASSIGN(UniqueFd fd, new_socket(state_path));
  ::setsockopt(fd.get(), SOL_SOCKET, SO_SNDTIMEO, &kConnectTimeout, sizeof(kConnectTimeout));
  if (::connect(fd.get(), address.get(), sizeof(address.name)) == 0) {
    return fd;
  }
  const int number = errno;
  const std::string act = "connect to " + path_of(state_path);
  if (number == ECONNREFUSED || number == ENOENT) {
    return fail(ErrorKind::kNotFound, act, number);
  }
  if (number == EAGAIN) {
    return fail(ErrorKind::kTimeout, act + ": the server does not answer: is it stopped?");
  }
  return fail_errno(number, act);
}

// Binds; 0 or an errno.
int bind_to(const UniqueFd& fd, const SocketAddress& address) {
  return ::bind(fd.get(), address.get(), sizeof(address.name)) == 0 ? 0 : errno;
}

// What the file in the way of bind is: a live server's, or one to be removed.
Result<> remove_stale(const std::string& state_path) {
  const Result<UniqueFd> other = connect_control(state_path);
  if (other || other.error().kind == ErrorKind::kTimeout) {
    return fail(ErrorKind::kBusy,
                path_of(state_path) + ": another server is running: stop it, or use that one");
  }
  if (other.error().kind != ErrorKind::kNotFound) {
    return Unexpected(other.error());
  }
  remove_control(state_path);
  return {};
}

// Milliseconds for poll(2) until an instant; -1: for ever.
int poll_time(const std::optional<SteadyClock::time_point>& until) {
  if (!until) {
    return -1;
  }
  const auto left = std::chrono::ceil<std::chrono::milliseconds>(*until - SteadyClock::now());
  constexpr int64_t kMost = 1 << 30;
  return static_cast<int>(std::clamp<int64_t>(left.count(), 0, kMost));
}

std::optional<SteadyClock::time_point> instant_after(ControlConnection::Timeout timeout) {
  return timeout ? std::optional(SteadyClock::now() + *timeout) : std::nullopt;
}

Result<> wait_for(int fd, short events, const std::optional<SteadyClock::time_point>& until) {
  pollfd entry{fd, events, 0};
  const int count = ::poll(&entry, 1, poll_time(until));
  if (count < 0 && errno != EINTR) {
    return fail_errno(errno, "poll control.sock");
  }
  if (count == 0) {
    return fail(ErrorKind::kTimeout, "control.sock: the other side was silent for too long");
  }
  return {};
}

bool would_block(int number) {
  return number == EAGAIN || number == EWOULDBLOCK || number == EINTR;
}

}  // namespace

Result<UniqueFd> listen_control(const std::string& state_path) {
  CKPT_ASSIGN(const SocketAddress address, address_of(state_path));
  CKPT_ASSIGN(UniqueFd fd, new_socket(state_path));
  // The file that bind makes has the socket's mode (unix(7)): there is no instant at which it is
  // wider.
  if (::fchmod(fd.get(), S_IRUSR | S_IWUSR) != 0) {
    return fail_errno(errno, "fchmod " + path_of(state_path));
  }
  int number = bind_to(fd, address);
  if (number == EADDRINUSE) {
    CKPT_TRY(remove_stale(state_path));
    number = bind_to(fd, address);
  }
  if (number != 0) {
    return fail_errno(number, "bind " + path_of(state_path));
  }
  // A client that gives up between poll and accept must not leave the acceptor waiting for the
  // next.
  if (::fcntl(fd.get(), F_SETFL, O_NONBLOCK) != 0 || ::listen(fd.get(), kBacklog) != 0) {
    return fail_errno(errno, "listen on " + path_of(state_path));
  }
  return fd;
}

void remove_control(const std::string& state_path) { ::unlink(path_of(state_path).c_str()); }

Result<ControlConnection> ControlConnection::connect(const std::string& state_path) {
  CKPT_ASSIGN(UniqueFd fd, connect_control(state_path));
  return ControlConnection(std::move(fd));
}

Result<> ControlConnection::send_line(std::string line, Timeout timeout) {
  line += '\n';
  return send(line, timeout);
}

Result<> ControlConnection::send(std::string_view text, Timeout timeout) {
  return send_bytes(std::as_bytes(std::span(text)), timeout);
}

Result<> ControlConnection::send_bytes(ConstByteSpan bytes, Timeout timeout) {
  const auto until = instant_after(timeout);
  while (!bytes.empty()) {
    const ssize_t count =
        ::send(fd_.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
    if (count >= 0) {
      bytes = bytes.subspan(static_cast<size_t>(count));
    } else if (would_block(errno)) {
      CKPT_TRY(wait_for(fd_.get(), POLLOUT, until));
    } else {
      return fail_errno(errno, "send on control.sock");
    }
  }
  return {};
}

std::optional<std::string> ControlConnection::take_line() {
  const size_t end = received_.find('\n', searched_bytes_);
  if (end == std::string::npos) {
    searched_bytes_ = received_.size();
    return std::nullopt;
  }
  std::string line = received_.substr(0, end);
  received_.erase(0, end + 1);
  searched_bytes_ = 0;
  return line;
}

Result<std::optional<std::string>> ControlConnection::receive_line(size_t bytes_max,
                                                                   Timeout timeout) {
  const auto until = instant_after(timeout);
  for (;;) {
    if (is_closed_->load()) {
      return std::optional<std::string>();
    }
    std::optional<std::string> line = take_line();
    if ((line ? line->size() : received_.size()) > bytes_max) {
      return fail(ErrorKind::kInvalid,
                  "control.sock: a line is longer than " + std::to_string(bytes_max) + " bytes");
    }
    if (line) {
      return line;
    }
    std::array<char, kReceiveBytes> buffer;
    const ssize_t count = ::recv(fd_.get(), buffer.data(), buffer.size(), MSG_DONTWAIT);
    if (count > 0) {
      received_.append(buffer.data(), static_cast<size_t>(count));
    } else if (count == 0 && received_.empty()) {
      return std::optional<std::string>();
    } else if (count == 0) {
      return fail(ErrorKind::kInvalid, "control.sock: the other side ended within a line");
    } else if (would_block(errno)) {
      CKPT_TRY(wait_for(fd_.get(), POLLIN, until));
    } else {
      return fail_errno(errno, "receive on control.sock");
    }
  }
}

Result<> ControlConnection::receive_bytes(ByteSpan bytes, Timeout timeout) {
  const auto until = instant_after(timeout);
  const size_t had_bytes = std::min(bytes.size(), received_.size());
  std::memcpy(bytes.data(), received_.data(), had_bytes);
  received_.erase(0, had_bytes);
  searched_bytes_ = 0;
  bytes = bytes.subspan(had_bytes);
  while (!bytes.empty()) {
    if (is_closed_->load()) {
      return fail(ErrorKind::kIo, "control.sock: nothing more is read");
    }
    const ssize_t count = ::recv(fd_.get(), bytes.data(), bytes.size(), MSG_DONTWAIT);
    if (count > 0) {
      bytes = bytes.subspan(static_cast<size_t>(count));
    } else if (count == 0) {
      return fail(ErrorKind::kInvalid, "control.sock: the other side ended within data");
    } else if (would_block(errno)) {
      CKPT_TRY(wait_for(fd_.get(), POLLIN, until));
    } else {
      return fail_errno(errno, "receive on control.sock");
    }
  }
  return {};
}

bool ControlConnection::peer_gone() const {
  pollfd entry{fd_.get(), 0, 0};
  return ::poll(&entry, 1, 0) > 0 && (entry.revents & (POLLHUP | POLLERR)) != 0;
}

bool ControlConnection::has_input() const {
  pollfd entry{fd_.get(), POLLIN, 0};
  return !received_.empty() || ::poll(&entry, 1, 0) > 0;
}

// What is in the socket's queue would still be given.
void ControlConnection::stop_reading() {
  is_closed_->store(true);
  ::shutdown(fd_.get(), SHUT_RD);
}

namespace {

Result<ucred> peer_of(int fd) {
  ucred credentials{};
  socklen_t length = sizeof(credentials);
  if (::getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &credentials, &length) != 0) {
    return fail_errno(errno, "credentials on control.sock");
  }
  return credentials;
}

}  // namespace

Result<unsigned> ControlConnection::peer_uid() const {
  CKPT_ASSIGN(const ucred credentials, peer_of(fd_.get()));
  return unsigned{credentials.uid};
}

Result<pid_t> ControlConnection::peer_pid() const {
  CKPT_ASSIGN(const ucred credentials, peer_of(fd_.get()));
  return credentials.pid;
}

void ControlConnection::shut_down() { ::shutdown(fd_.get(), SHUT_RDWR); }

}  // namespace ckpt
