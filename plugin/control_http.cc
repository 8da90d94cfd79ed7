// SPDX-License-Identifier: Apache-2.0
#include "plugin/control_http.h"

#include <algorithm>

#include "plugin/metrics.h"

namespace ckpt {
namespace {

constexpr std::string_view kMethod = "GET ";
constexpr std::string_view kMetricsRequest = "GET /metrics HTTP/1.";

struct HttpAnswer {
  const char* status;
  std::string type;
  std::string body;
};

HttpAnswer plain(const char* status, const std::string& text) {
  return {status, "text/plain; charset=utf-8", text + "\n"};
}

std::string encode(const HttpAnswer& answer) {
  return "HTTP/1.1 " + std::string(answer.status) + "\r\nContent-Type: " + answer.type +
         "\r\nContent-Length: " + std::to_string(answer.body.size()) +
         "\r\nConnection: close\r\n\r\n" + answer.body;
}

// A line ends with CR LF; LF alone is taken too (RFC 9112, 2.2).
std::string_view without_return(std::string_view line) {
  return line.ends_with('\r') ? line.substr(0, line.size() - 1) : line;
}

bool asks_for_metrics(std::string_view line) {
  return line.size() == kMetricsRequest.size() + 1 && line.starts_with(kMetricsRequest) &&
         line.back() >= '0' && line.back() <= '9';
}

// Nothing of them matters, but they must have been read before the connection is closed. False:
// the client ended before they did.
Result<bool> skip_headers(ControlConnection& connection, const HttpLimits& limits) {
  const auto until = std::chrono::steady_clock::now() + limits.headers_timeout;
  size_t left_bytes = limits.headers_bytes_max;
  for (;;) {
    const auto left =
        std::chrono::ceil<std::chrono::milliseconds>(until - std::chrono::steady_clock::now());
    const auto line =
        connection.receive_line(left_bytes, std::max(left, std::chrono::milliseconds(0)));
    if (!line) {
      return Unexpected(line.error());
    }
    if (!*line || without_return(**line).empty()) {
      return line->has_value();
    }
    left_bytes -= std::min(left_bytes, (*line)->size() + 1);
  }
}

HttpAnswer answer_to_error(const Error& error) {
  return error.kind == ErrorKind::kTimeout
             ? plain("408 Request Timeout", "the headers did not end in time")
             : plain("431 Request Header Fields Too Large", "the headers are too long");
}

}  // namespace

bool is_http(const std::string& line) { return line.starts_with(kMethod); }

void serve_http(ControlConnection& connection, const std::string& first_line,
                const HttpLimits& limits, const std::function<std::string()>& metrics) {
  const Result<bool> ended = skip_headers(connection, limits);
  if (ended && !*ended) {
    return;
  }
  const HttpAnswer answer =
      !ended ? answer_to_error(ended.error())
      : asks_for_metrics(without_return(first_line))
          ? HttpAnswer{"200 OK", kMetricsType, metrics()}
          : plain("404 Not Found", "there is /metrics here, and nothing else");
  // Whoever does not take it is gone.
  (void)connection.send(encode(answer), limits.answer_timeout);
}

}  // namespace ckpt
