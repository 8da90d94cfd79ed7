// SPDX-License-Identifier: Apache-2.0
// The control socket: control.sock in a state directory, and lines over its connections.
#pragma once

#include <atomic>
#include <chrono>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "common/bytes.h"
#include "common/fd.h"
#include "common/result.h"

namespace ckpt {

inline constexpr const char* kControlSocketName = "control.sock";

// Listens on control.sock (mode 0600) of a state directory; a socket that a dead server left is
// replaced. kBusy: another server answers there.
Result<UniqueFd> listen_control(const std::string& state_path);
void remove_control(const std::string& state_path);

// A connected stream of lines, and of bytes that a line has announced.
//
// Threads: one at a time, but shut_down(), stop_reading() and peer_gone() from any.
// Failure: kTimeout when the time given for a line has passed, kInvalid for a line too long or cut
// off,
//          else kIo; after an error only shut_down() makes sense.
class ControlConnection {
 public:
  // Nothing: as long as it takes.
  using Timeout = std::optional<std::chrono::milliseconds>;

  explicit ControlConnection(UniqueFd fd) : fd_(std::move(fd)) {}
  // kNotFound: nobody listens on the control.sock of this state directory.
  static Result<ControlConnection> connect(const std::string& state_path);

  // Blocks until all of it is handed over.
  Result<> send(std::string_view bytes, Timeout timeout);
  // The same with a newline after it.
  Result<> send_line(std::string line, Timeout timeout);
  // The same with bytes that follow a line.
  Result<> send_bytes(ConstByteSpan bytes, Timeout timeout);
  // A line without its newline, of at most bytes_max bytes. Nothing: the other side has ended.
  Result<std::optional<std::string>> receive_line(size_t bytes_max, Timeout timeout);
  // Exactly so many bytes. kInvalid: the other side has ended before.
  Result<> receive_bytes(ByteSpan bytes, Timeout timeout);
  // Whether the other side has closed its end; half-closed is not gone.
  [[nodiscard]] bool peer_gone() const;
  // Whether something can be read, or nothing more ever.
  [[nodiscard]] bool has_input() const;
  // Whoever reads, or comes to read, is at the end, whatever has come; it can still be written to.
  void stop_reading();
  // The user at the other end when it connected.
  [[nodiscard]] Result<unsigned> peer_uid() const;
  [[nodiscard]] Result<pid_t> peer_pid() const;
  // Ends both directions: whoever waits on it wakes.
  void shut_down();

 private:
  std::optional<std::string> take_line();

  UniqueFd fd_;
  std::unique_ptr<std::atomic<bool>> is_closed_ = std::make_unique<std::atomic<bool>>(false);
  std::string received_;
  size_t searched_bytes_ = 0;  // of received_, without a newline
};

}  // namespace ckpt
