// SPDX-License-Identifier: Apache-2.0
#include "common/address.h"

#include <sys/un.h>

#include <charconv>

namespace ckpt {
namespace {

constexpr char kUnix[] = "unix:";
constexpr char kTcp[] = "tcp:";
constexpr size_t kPathBytesMax = sizeof(sockaddr_un::sun_path) - 1;  // unix(7)

bool is_port(const std::string& text) {
  unsigned port = 0;
  const char* const end = text.data() + text.size();
  const auto read = std::from_chars(text.data(), end, port);
  return read.ec == std::errc() && read.ptr == end && port >= 1 && port <= 65535;
}

Result<Address> parse_path(const std::string& path) {
  if (path.empty() || path.front() != '/') {
    return fail(ErrorKind::kInvalid, "unix:" + path + ": give the absolute path of a socket");
  }
  if (path.size() > kPathBytesMax) {
    return fail(ErrorKind::kInvalid, "unix:" + path + ": the path of a socket has at most " +
                                         std::to_string(kPathBytesMax) + " bytes");
  }
  return Address{path, "", ""};
}

Result<Address> parse_host(const std::string& text) {
  const size_t colon = text.rfind(':');
  const bool has_port = colon != std::string::npos && is_port(text.substr(colon + 1));
  std::string host = text.substr(0, has_port ? colon : 0);
  const bool bracketed = host.size() > 2 && host.front() == '[' && host.back() == ']';
  if (bracketed) {
    host = host.substr(1, host.size() - 2);
  }
  const bool is_v6 = host.find(':') != std::string::npos;
  if (host.empty() || is_v6 != bracketed || host.find_first_of("/[] ") != std::string::npos) {
    return fail(ErrorKind::kInvalid,
                text + ": not an address; give unix:PATH, HOST:PORT or [V6]:PORT");
  }
  return Address{"", host, text.substr(colon + 1)};
}

}  // namespace

std::string Address::to_string() const {
  if (is_unix()) {
    return kUnix + path;
  }
  const bool is_v6 = host.find(':') != std::string::npos;
  const bool is_like_a_kind = host == "tcp" || host == "unix";
  return (is_like_a_kind ? kTcp : "") + (is_v6 ? "[" + host + "]" : host) + ":" + port;
}

Result<Address> parse_address(const std::string& text) {
  if (text.starts_with(kUnix)) {
    return parse_path(text.substr(sizeof(kUnix) - 1));
  }
  return parse_host(text.starts_with(kTcp) ? text.substr(sizeof(kTcp) - 1) : text);
}

}  // namespace ckpt
