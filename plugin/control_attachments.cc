// SPDX-License-Identifier: Apache-2.0
#include "plugin/control_attachments.h"

namespace ckpt {
namespace {

// How long one waits for a piece before it looks whether the other side has spoken.
constexpr std::chrono::milliseconds kPieceLook{50};

// Nothing: that was all.
Result<std::optional<PieceAnswer>> receive_head(ControlConnection& connection) {
  CKPT_ASSIGN(const auto line, connection.receive_line(kRequestBytesMax, std::nullopt));
  if (!line) {
    return fail(ErrorKind::kIo, "control.sock: the client has gone before all was there");
  }
  return decode_piece_line(*line);
}

// False: that was all.
Result<bool> receive_piece(ControlConnection& connection, AttachmentFeed& feed,
                           ControlConnection::Timeout timeout) {
  CKPT_ASSIGN(const auto head, receive_head(connection));
  if (!head) {
    return false;
  }
  AttachmentFeed::Piece piece{head->index, std::vector<std::byte>(head->length)};
  CKPT_TRY(connection.receive_bytes(piece.bytes, timeout));
  CKPT_TRY(feed.put(std::move(piece)));
  return true;
}

}  // namespace

bool receive_attachments(ControlConnection& connection, AttachmentFeed& feed,
                         ControlConnection::Timeout timeout) {
  Result<bool> more = true;
  while (more && *more) {
    more = receive_piece(connection, feed, timeout);
  }
  if (!more) {
    feed.abort(within("attachments", more.error()).error());
    return false;
  }
  feed.end();
  return true;
}

Result<bool> send_attachments(ControlConnection& connection, AttachmentFeed& feed,
                              ControlConnection::Timeout timeout) {
  while (!feed.is_complete()) {
    if (connection.has_input()) {
      return false;  // it says why it takes no more
    }
    if (auto problem = feed.problem()) {
      return Unexpected(*problem);
    }
    if (const auto piece = feed.take(kPieceLook); piece) {
      CKPT_TRY(send_piece(connection, piece->index, piece->bytes, timeout));
    }
  }
  CKPT_TRY(connection.send_line(encode_pieces_end(), timeout));
  return true;
}

Result<> send_piece(ControlConnection& connection, uint32_t index, ConstByteSpan piece,
                    ControlConnection::Timeout timeout) {
  CKPT_TRY(connection.send_line(encode_piece_line({index, piece.size()}), timeout));
  return connection.send_bytes(piece, timeout);
}

Result<> ControlPieces::take(const PieceHeader& /*header*/, ConstByteSpan piece) {
  auto sent = send_piece(connection_, 0, piece, timeout_);
  is_broken_ = is_broken_ || !sent;
  return sent;
}

}  // namespace ckpt
