// SPDX-License-Identifier: Apache-2.0
// Attachments over a control connection, either way.
//
// Format: docs/control-protocol.md, "Attachments"
#pragma once

#include "plugin/control_codec.h"
#include "plugin/control_socket.h"

namespace ckpt {

// Reads pieces from a client into a feed until the client says that it was all. What goes wrong
// aborts the feed. After the feed was stopped: returns soon, if the connection's reading is ended.
// timeout: for the bytes that a line has announced; for the line itself it waits as long as it
// takes.
//
// True: the client has said all of it; false: nothing more can be read of the connection.
bool receive_attachments(ControlConnection& connection, AttachmentFeed& feed,
                         ControlConnection::Timeout timeout);

// The other side of it. True: all of it went out; false: there is an answer to be read before.
Result<bool> send_attachments(ControlConnection& connection, AttachmentFeed& feed,
                              ControlConnection::Timeout timeout);

// A piece, with the line before it.
Result<> send_piece(ControlConnection& connection, uint32_t index, ConstByteSpan piece,
                    ControlConnection::Timeout timeout);

// An attachment whose destination is at the other end of a control connection.
class ControlPieces : public PieceSink {
 public:
  ControlPieces(ControlConnection& connection, ControlConnection::Timeout timeout)
      : connection_(connection), timeout_(timeout) {}
  Result<> take(const PieceHeader& header, ConstByteSpan piece) override;
  // Whether a send failed: what was said is cut off, and nothing may follow it.
  [[nodiscard]] bool is_broken() const { return is_broken_; }

 private:
  ControlConnection& connection_;
  const ControlConnection::Timeout timeout_;
  bool is_broken_ = false;
};

}  // namespace ckpt
