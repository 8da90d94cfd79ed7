// SPDX-License-Identifier: Apache-2.0
// Frames over a stream.
#pragma once

#include "common/frame.h"
#include "common/mutex.h"
#include "common/stream.h"

namespace ckpt {

struct ReceivedFrame {
  FrameHeader header;
  std::vector<std::byte> body;
};

// Threads: one that receives; send() from any, and connection() after welcome.
// Failure: any error ends the connection: what follows in the stream cannot be told any more.
class FrameChannel {
 public:
  // stream: outlives it.
  explicit FrameChannel(Stream& stream) : stream_(stream) {}

  // The number that every frame has from here on.
  void set_connection(uint64_t connection) { connection_ = connection; }
  [[nodiscard]] uint64_t connection() const { return connection_; }
  Result<> send(FrameType type, uint64_t request, ConstByteSpan body) CKPT_EXCLUDES(mutex_);
  // The same of a frame without a body, unless another is being sent or would have to wait. False:
  // so it was.
  bool send_if_free(FrameType type, uint64_t request) CKPT_EXCLUDES(mutex_);
  // Blocks until a header is there. It is valid, and of this connection.
  Result<> receive_header(ReceivedFrame& frame);
  // Blocks until the body for it is there, of the right digest; what it says is not looked at. Only
  // here memory is taken, as the bytes come; that of the frame is used again.
  Result<> receive_body(ReceivedFrame& frame);
  // Both.
  Result<> receive(ReceivedFrame& frame);

 private:
  Stream& stream_;
  uint64_t connection_ = 0;
  Mutex mutex_;  // a frame is sent whole
};

}  // namespace ckpt
