// SPDX-License-Identifier: Apache-2.0
// One connection to backupd, at the client's end.
//
// Format: docs/wire-protocol.md
#pragma once

#include <deque>

#include "common/frame_channel.h"
#include "common/message.h"
#include "common/volume_message.h"

namespace ckpt {

// Requests that may be unanswered at once: their answers fit into a socket's buffer, so that
// neither side waits for the other to read.
inline constexpr size_t kUnansweredMax = 64;

// Threads: one at a time.
// Failure: what the server refuses is the error that it says, and the connection goes on. Any other
//          error ends it (is_broken()): it must be dropped.
class StoreClient {
 public:
  // stream: outlives it.
  explicit StoreClient(Stream& stream) : channel_(stream) {}

  // Says hello and hears the welcome: before anything else.
  Result<> greet(const Hello& hello);
  [[nodiscard]] const Welcome& welcome() const { return welcome_; }
  [[nodiscard]] bool is_broken() const { return is_broken_; }
  // Sends a request that is answered by `done`, and does not wait for it as long as the window
  // allows. The error may be that of an earlier one.
  Result<> send(FrameType type, ConstByteSpan body);
  // Hears the answers of all that send() has sent. An error is the first of theirs.
  Result<> settle();
  // Sends a request and hears its answer, which is one frame of that type: its body, valid until
  // the next call. Answers of earlier requests come first; an error may be theirs.
  Result<ConstByteSpan> ask(FrameType type, ConstByteSpan body, FrameType answer);
  // Sends a request that is answered by content; its parts go to the sink.
  Result<> ask_content(FrameType type, ConstByteSpan body, ContentSink& sink);
  // Asks for an attachment; its pieces go to the sink.
  Result<> ask_pieces(const AttachmentRequest& asked, PieceSink& sink);
  // The same of an export: how it begins goes there first.
  Result<> ask_export(const std::optional<Epoch>& number, ExportSink& sink);
  // The number of the last request that was sent whole; the back-up has seen none after it.
  [[nodiscard]] uint64_t last_request() const { return last_request_; }
  // Whether send() has sent what is not answered yet.
  [[nodiscard]] bool has_unanswered() const { return !unanswered_.empty(); }

 private:
  struct Unanswered {
    uint64_t request = 0;
    uint64_t body_bytes = 0;
  };

  Result<uint64_t> put(FrameType type, ConstByteSpan body);
  Result<> settle_one();
  // The next frame that answers that request; an error that the server says is returned as such.
  Result<FrameType> hear(uint64_t request);
  Result<> expect(FrameType found, FrameType wanted);
  Result<> hear_content(uint64_t request, ContentSink& sink);
  Result<bool> pass_on(FrameType type, ContentSink& sink);
  // The error of a connection that is over.
  [[nodiscard]] Error as_lost(Error error) const;
  Unexpected broken(const Error& error);

  FrameChannel channel_;
  Welcome welcome_;
  uint64_t last_request_ = 0;
  std::deque<Unanswered> unanswered_;
  uint64_t unanswered_bytes_ = 0;
  ReceivedFrame heard_;
  bool is_broken_ = false;
};

}  // namespace ckpt
