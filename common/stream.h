// SPDX-License-Identifier: Apache-2.0
// The bytes of a connection, below the frames: plain, or TLS from the first byte.
#pragma once

#include <chrono>
#include <string>

#include "common/bytes.h"
#include "common/result.h"

namespace ckpt {

// Threads: one that reads and one that writes, at once; the rest by any.
// Failure: kUnreachable: the other side has closed, or was silent for too long. The stream is over.
class Stream {
 public:
  virtual ~Stream() = default;
  // Agrees with the other side on what protects the stream: before anything else. host: whom a
  // client has connected to; a server says nothing.
  virtual Result<> shake_hands(const std::string& host) = 0;
  // Fills all of it.
  virtual Result<> read(ByteSpan buffer) = 0;
  // Both, one after the other, in one call where that is possible.
  virtual Result<> write(ConstByteSpan head, ConstByteSpan body) = 0;
  // Whether a few bytes could be written now without waiting.
  [[nodiscard]] virtual bool can_write() const = 0;
  // Whether the other side is known to be gone, without waiting or reading.
  [[nodiscard]] virtual bool is_over() const = 0;
  // What has come is still read, and then the stream is over; it can be written to.
  virtual void stop_reading() = 0;
  // Ends both directions: whoever waits wakes.
  virtual void shut_down() = 0;
  // The longest time without a byte while somebody waits for one, or for room to send. While nobody
  // reads or writes.
  virtual void set_silence(std::chrono::milliseconds silence) = 0;
};

}  // namespace ckpt
