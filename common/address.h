// SPDX-License-Identifier: Apache-2.0
// Where a back-up listens: a Unix socket, or a host and a port.
#pragma once

#include <string>

#include "common/result.h"

namespace ckpt {

struct Address {
  std::string path;  // of a Unix socket; empty: TCP
  std::string host;  // a name, or a number without brackets
  std::string port;  // a number, 1 to 65535

  [[nodiscard]] bool is_unix() const { return !path.empty(); }
  // unix:PATH, HOST:PORT or [V6]:PORT. parse_address() reads it.
  [[nodiscard]] std::string to_string() const;
  bool operator==(const Address&) const = default;
};

// unix:PATH, HOST:PORT, [V6]:PORT, or these two with tcp: in front. The path must be absolute: a
// daemon's working directory is nobody's business. kInvalid says what is wrong.
Result<Address> parse_address(const std::string& text);

}  // namespace ckpt
