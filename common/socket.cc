// SPDX-License-Identifier: Apache-2.0
#include "common/socket.h"

#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <memory>

namespace ckpt {
namespace {

using AddressList = std::unique_ptr<addrinfo, decltype(&freeaddrinfo)>;

Result<AddressList> resolve(const Address& address, int flags) {
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = flags | AI_NUMERICSERV;
  addrinfo* found = nullptr;
  const int failed = getaddrinfo(address.host.c_str(), address.port.c_str(), &hints, &found);
  if (failed != 0) {
    return fail(ErrorKind::kUnreachable, address.to_string() + ": " + gai_strerror(failed));
  }
  return AddressList(found, &freeaddrinfo);
}

bool is_loopback(const sockaddr* address) {
  if (address->sa_family == AF_INET) {
    sockaddr_in v4{};
    std::memcpy(&v4, address, sizeof(v4));
    return (ntohl(v4.sin_addr.s_addr) >> 24U) == IN_LOOPBACKNET;
  }
  sockaddr_in6 v6{};
  std::memcpy(&v6, address, sizeof(v6));
  return IN6_IS_ADDR_LOOPBACK(&v6.sin6_addr);
}

Result<> check_reach(const Address& address, Reach reach, const sockaddr* found) {
  if (reach == Reach::kAnywhere || is_loopback(found)) {
    return {};
  }
  return fail(ErrorKind::kInvalid,
              address.to_string() +
                  " is beyond this machine, and the connection would be neither encrypted nor "
                  "authenticated: give tls-certificates or tls-psk, or say tls=off if everybody on "
                  "that network may read and change the disk");
}

sockaddr_un unix_name(const std::string& path) {
  sockaddr_un name{};
  name.sun_family = AF_UNIX;
  path.copy(name.sun_path, sizeof(name.sun_path) - 1);
  return name;
}

// A socket address of any family, as the system's calls take it.
const sockaddr* generic(const sockaddr_un& name) {
  return static_cast<const sockaddr*>(static_cast<const void*>(&name));
}

Result<> wait_connected(int fd, std::chrono::milliseconds patience) {
  pollfd waited{fd, POLLOUT, 0};
  int ready = 0;
  do {
    ready = ::poll(&waited, 1, static_cast<int>(patience.count()));
  } while (ready < 0 && errno == EINTR);
  int failed = ETIMEDOUT;
  socklen_t length = sizeof(failed);
  if (ready > 0 && getsockopt(fd, SOL_SOCKET, SO_ERROR, &failed, &length) != 0) {
    failed = errno;
  }
  return failed == 0 ? Result<>() : Result<>(fail(ErrorKind::kUnreachable, "connect", failed));
}

Result<UniqueFd> connect_one(int family, const sockaddr* to, socklen_t length,
                             std::chrono::milliseconds patience) {
  UniqueFd fd(::socket(family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!fd) {
    return fail(ErrorKind::kUnreachable, "socket", errno);
  }
  if (::connect(fd.get(), to, length) != 0) {
    if (errno != EINPROGRESS) {
      return fail(ErrorKind::kUnreachable, "connect", errno);
    }
    CKPT_TRY(wait_connected(fd.get(), patience));
  }
  return fd;
}

Result<ucred> user_of(int fd) {
  ucred user{};
  socklen_t length = sizeof(user);
  if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &user, &length) != 0) {
    return fail_errno(errno, "SO_PEERCRED");
  }
  return user;
}

// Root may have given the path of whoever serves it.
Result<> check_server(int fd, const Address& address) {
  CKPT_ASSIGN(const ucred user, user_of(fd));
  const uid_t own = geteuid();
  if (user.uid == own || user.uid == 0 || own == 0) {
    return {};
  }
  return fail(ErrorKind::kInvalid, address.to_string() + " is served by user " +
                                       std::to_string(user.uid) + ", not by you or root");
}

Result<UniqueFd> connect_unix(const Address& address, std::chrono::milliseconds patience) {
  const sockaddr_un name = unix_name(address.path);
  auto fd = connect_one(AF_UNIX, generic(name), sizeof(name), patience);
  if (!fd) {
    return within(address.to_string(), fd.error());
  }
  CKPT_TRY(check_server(fd->get(), address));
  return fd;
}

// A frame goes out when it is complete: nothing more would come to fill a segment.
void send_at_once(int fd) {
  const int on = 1;
  (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
}

Result<UniqueFd> connect_tcp(const Address& address, Reach reach,
                             std::chrono::milliseconds patience) {
  CKPT_ASSIGN(const AddressList list, resolve(address, AI_ADDRCONFIG));
  Error error{ErrorKind::kUnreachable, 0, "has no address"};
  for (const addrinfo* one = list.get(); one != nullptr; one = one->ai_next) {
    CKPT_TRY(check_reach(address, reach, one->ai_addr));
    auto fd = connect_one(one->ai_family, one->ai_addr, one->ai_addrlen, patience);
    if (fd) {
      send_at_once(fd->get());
      return fd;
    }
    error = fd.error();
  }
  return within(address.to_string(), error);
}

// Somebody who listens is not replaced.
Result<> remove_stale(const Address& address) {
  struct stat status {};
  if (lstat(address.path.c_str(), &status) != 0) {
    return errno == ENOENT ? Result<>() : Result<>(fail_errno(errno, address.path));
  }
  if (!S_ISSOCK(status.st_mode)) {
    return fail(ErrorKind::kBusy, address.path + " is there, and is not a socket");
  }
  const sockaddr_un name = unix_name(address.path);
  const auto tried = connect_one(AF_UNIX, generic(name), sizeof(name), std::chrono::seconds(1));
  if (tried || tried.error().number != ECONNREFUSED) {
    return fail(ErrorKind::kBusy, address.to_string() + ": another server listens there");
  }
  return ::unlink(address.path.c_str()) == 0 ? Result<>()
                                             : Result<>(fail_errno(errno, address.path));
}

Unexpected no_listener(const Address& address, const char* act, int number) {
  const ErrorKind kind = number == EADDRINUSE ? ErrorKind::kBusy : ErrorKind::kIo;
  return fail(kind, address.to_string() + ": " + act, number);
}

Result<UniqueFd> listen_one(const Address& address, int family, const sockaddr* at,
                            socklen_t length) {
  UniqueFd fd(::socket(family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!fd) {
    return no_listener(address, "socket", errno);
  }
  const int on = 1;
  if (family != AF_UNIX) {
    (void)setsockopt(fd.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
  }
  if (family == AF_INET6) {
    (void)setsockopt(fd.get(), IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof(on));
  }
  if (family == AF_UNIX) {
    // Of the socket file that bind(2) makes; there is no moment at which others could connect.
    (void)fchmod(fd.get(), 0600);
  }
  if (::bind(fd.get(), at, length) != 0) {
    return no_listener(address, "bind", errno);
  }
  if (::listen(fd.get(), SOMAXCONN) != 0) {
    return no_listener(address, "listen", errno);
  }
  return fd;
}

Result<std::vector<UniqueFd>> listen_unix(const Address& address) {
  CKPT_TRY(remove_stale(address));
  const sockaddr_un name = unix_name(address.path);
  std::vector<UniqueFd> listeners;
  CKPT_ASSIGN(UniqueFd fd, listen_one(address, AF_UNIX, generic(name), sizeof(name)));
  listeners.push_back(std::move(fd));
  return listeners;
}

Result<std::vector<UniqueFd>> listen_tcp(const Address& address, Reach reach) {
  CKPT_ASSIGN(const AddressList list, resolve(address, AI_PASSIVE));
  std::vector<UniqueFd> listeners;
  for (const addrinfo* one = list.get(); one != nullptr; one = one->ai_next) {
    CKPT_TRY(check_reach(address, reach, one->ai_addr));
    auto fd = listen_one(address, one->ai_family, one->ai_addr, one->ai_addrlen);
    if (fd) {
      listeners.push_back(std::move(*fd));
    } else if (fd.error().number != EADDRNOTAVAIL && fd.error().number != EAFNOSUPPORT) {
      return Unexpected(fd.error());
    }
  }
  return listeners.empty() ? no_listener(address, "bind", EADDRNOTAVAIL)
                           : Result<std::vector<UniqueFd>>(std::move(listeners));
}

std::string describe_host(const sockaddr* from, socklen_t length) {
  std::array<char, NI_MAXHOST> host{};
  std::array<char, NI_MAXSERV> port{};
  const int failed = getnameinfo(from, length, host.data(), host.size(), port.data(), port.size(),
                                 NI_NUMERICHOST | NI_NUMERICSERV);
  return failed == 0 ? Address{"", host.data(), port.data()}.to_string() : "an unknown host";
}

Result<std::string> describe_user(int fd) {
  CKPT_ASSIGN(const ucred user, user_of(fd));
  const std::string text =
      "process " + std::to_string(user.pid) + " of user " + std::to_string(user.uid);
  if (user.uid != 0 && user.uid != geteuid()) {
    return fail(ErrorKind::kFenced, text + ": only root and this server's own user may connect");
  }
  return text;
}

}  // namespace

Result<> check_address(const Address& address, Reach reach) {
  if (address.is_unix()) {
    return {};
  }
  const auto list = resolve(address, AI_ADDRCONFIG);
  for (const addrinfo* one = list ? list->get() : nullptr; one != nullptr; one = one->ai_next) {
    CKPT_TRY(check_reach(address, reach, one->ai_addr));
  }
  return {};
}

Result<UniqueFd> connect_socket(const Address& address, Reach reach,
                                std::chrono::milliseconds patience) {
  return address.is_unix() ? connect_unix(address, patience)
                           : connect_tcp(address, reach, patience);
}

Result<std::vector<UniqueFd>> listen_at(const Address& address, Reach reach) {
  return address.is_unix() ? listen_unix(address) : listen_tcp(address, reach);
}

Result<> check_bound(int listener, Reach reach) {
  sockaddr_storage at{};
  socklen_t length = sizeof(at);
  auto* const name = static_cast<sockaddr*>(static_cast<void*>(&at));
  if (::getsockname(listener, name, &length) != 0) {
    return fail_errno(errno, "getsockname");
  }
  if (at.ss_family == AF_UNIX) {
    return {};
  }
  CKPT_ASSIGN(const Address address, parse_address(describe_host(name, length)));
  return check_reach(address, reach, name);
}

Result<AcceptedSocket> accept_socket(int listener) {
  sockaddr_storage from{};
  socklen_t length = sizeof(from);
  auto* const name = static_cast<sockaddr*>(static_cast<void*>(&from));
  AcceptedSocket accepted;
  accepted.socket.reset(::accept4(listener, name, &length, SOCK_CLOEXEC | SOCK_NONBLOCK));
  if (!accepted.socket) {
    return fail_errno(errno, "accept");
  }
  if (from.ss_family == AF_UNIX) {
    CKPT_ASSIGN(accepted.peer, describe_user(accepted.socket.get()));
    accepted.is_local = true;
    return accepted;
  }
  send_at_once(accepted.socket.get());
  accepted.peer = describe_host(name, length);
  return accepted;
}

}  // namespace ckpt
