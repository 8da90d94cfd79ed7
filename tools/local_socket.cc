// SPDX-License-Identifier: Apache-2.0
#include "tools/local_socket.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>

#include <cerrno>
#include <filesystem>

namespace ckpt {
namespace {

constexpr int kBacklog = 4;
// Where as many wait as may, one more waits to be allowed to wait.
constexpr time_t kConnectSeconds = 10;

// Nothing: it is too long.
bool set_path(sockaddr_un& address, const std::string& path) {
  address.sun_family = AF_UNIX;
  if (path.size() >= sizeof(address.sun_path)) {
    return false;
  }
  path.copy(address.sun_path, path.size());
  return true;
}

const sockaddr* as_socket_address(const sockaddr_un& address) {
  return reinterpret_cast<const sockaddr*>(&address);  // NOLINT: as bind(2) and connect(2) have it
}

}  // namespace

Result<UniqueFd> connect_local(const std::string& path) {
  const std::filesystem::path place(path);
  sockaddr_un address{};
  UniqueFd folder;  // by which a long path is short
  if (!set_path(address, path)) {
    const std::string parent = place.parent_path().string();
    folder.reset(::open(parent.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
    const std::string name = place.filename().string();
    if (!folder ||
        !set_path(address, "/proc/self/fd/" + std::to_string(folder.get()) + "/" + name)) {
      return fail_errno(folder ? ENAMETOOLONG : errno, "connect to " + path);
    }
  }
  UniqueFd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  const timeval timeout{kConnectSeconds, 0};
  if (!fd || ::setsockopt(fd.get(), SOL_SOCKET, SO_SNDTIMEO, &timeout, sizeof(timeout)) != 0 ||
      ::connect(fd.get(), as_socket_address(address), sizeof(address)) != 0) {
    return errno == ECONNREFUSED
               ? fail(ErrorKind::kNotFound, "connect to " + path + ": nobody listens there")
           : errno == EAGAIN
               ? fail(ErrorKind::kBusy, "connect to " + path + ": others wait there already")
               : fail_errno(errno, "connect to " + path);
  }
  return fd;
}

Result<UniqueFd> listen_local(const std::string& path) {
  sockaddr_un address{};
  if (!set_path(address, path)) {
    return fail(ErrorKind::kInvalid, path + ": too long for a Unix socket");
  }
  UniqueFd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (!fd || ::bind(fd.get(), as_socket_address(address), sizeof(address)) != 0 ||
      ::listen(fd.get(), kBacklog) != 0) {
    return fail_errno(errno, "listen at " + path);
  }
  return fd;
}

}  // namespace ckpt
