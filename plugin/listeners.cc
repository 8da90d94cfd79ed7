// SPDX-License-Identifier: Apache-2.0
#include "plugin/listeners.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <filesystem>

namespace ckpt {
namespace {

bool is_listening(int fd) {
  int listens = 0;
  socklen_t size = sizeof(listens);
  return ::getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listens, &size) == 0 && listens != 0;
}

template <typename Address>
Address address_as(const sockaddr_storage& storage) {
  Address address{};
  std::memcpy(&address, &storage, sizeof(address));
  return address;
}

std::string uri_of_internet(int family, const void* host, in_port_t port, bool is_any) {
  std::array<char, INET6_ADDRSTRLEN> text{};
  if (::inet_ntop(family, host, text.data(), text.size()) == nullptr) {
    return "";
  }
  const std::string name = is_any               ? "localhost"
                           : family == AF_INET6 ? "[" + std::string(text.data()) + "]"
                                                : std::string(text.data());
  return "nbd://" + name + ":" + std::to_string(ntohs(port));
}

// Empty: of another kind.
std::string uri_of(int fd) {
  sockaddr_storage storage{};
  socklen_t size = sizeof(storage);
  if (::getsockname(fd, reinterpret_cast<sockaddr*>(&storage), &size) != 0) {  // NOLINT: as it is
    return "";
  }
  if (storage.ss_family == AF_UNIX) {
    const auto address = address_as<sockaddr_un>(storage);
    const size_t most = size - std::min<size_t>(size, offsetof(sockaddr_un, sun_path));
    return uri_of_path(std::string(address.sun_path, strnlen(address.sun_path, most)));
  }
  if (storage.ss_family == AF_INET) {
    const auto address = address_as<sockaddr_in>(storage);
    return uri_of_internet(AF_INET, &address.sin_addr, address.sin_port,
                           address.sin_addr.s_addr == htonl(INADDR_ANY));
  }
  if (storage.ss_family == AF_INET6) {
    const auto address = address_as<sockaddr_in6>(storage);
    return uri_of_internet(AF_INET6, &address.sin6_addr, address.sin6_port,
                           IN6_IS_ADDR_UNSPECIFIED(&address.sin6_addr));
  }
  return "";
}

}  // namespace

std::string uri_of_path(const std::string& path) {
  constexpr const char* kPlain =
      "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~/";
  constexpr const char* kDigits = "0123456789ABCDEF";
  if (path.empty()) {
    return "";
  }
  std::string uri = "nbd+unix:///?socket=";
  for (const char letter : path) {
    const auto byte = static_cast<unsigned char>(letter);
    uri += std::strchr(kPlain, letter) != nullptr
               ? std::string(1, letter)
               : std::string{'%', kDigits[byte >> 4U], kDigits[byte & 15U]};
  }
  return uri;
}

std::vector<std::string> listening_uris() {
  std::vector<std::string> uris;
  std::error_code ignored;
  for (const auto& entry : std::filesystem::directory_iterator("/proc/self/fd", ignored)) {
    const int fd = std::atoi(entry.path().filename().c_str());
    std::string uri = is_listening(fd) ? uri_of(fd) : "";
    if (!uri.empty() && std::ranges::find(uris, uri) == uris.end()) {
      uris.push_back(std::move(uri));
    }
  }
  return uris;
}

}  // namespace ckpt
