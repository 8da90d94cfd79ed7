// SPDX-License-Identifier: Apache-2.0
// GET /metrics on the control socket, for those who collect metrics: no more of HTTP than that.
#pragma once

#include <functional>
#include <string>

#include "plugin/control_socket.h"

namespace ckpt {

// Whether a line is the first of such a request rather than one of the control protocol.
bool is_http(const std::string& line);

struct HttpLimits {
  size_t headers_bytes_max = 0;
  std::chrono::milliseconds headers_timeout{};  // for all of them
  std::chrono::milliseconds answer_timeout{};
};

// Reads the headers that follow a first line, and answers. Then the connection is to be closed.
void serve_http(ControlConnection& connection, const std::string& first_line,
                const HttpLimits& limits, const std::function<std::string()>& metrics);

}  // namespace ckpt
