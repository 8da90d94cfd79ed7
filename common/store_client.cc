// SPDX-License-Identifier: Apache-2.0
#include "common/store_client.h"

namespace ckpt {
namespace {

// Some kinds say here what only this side can know: of the image, of the link, of what was sent.
Error as_theirs(Error error) {
  const bool is_ours = error.kind == ErrorKind::kUnreadable || error.kind == ErrorKind::kVoid;
  error.kind = is_ours ? ErrorKind::kIo : error.kind;
  return error;
}

}  // namespace

Result<> StoreClient::greet(const Hello& hello) {
  CKPT_ASSIGN(const ConstByteSpan body,
              ask(FrameType::kHello, encode_hello(hello), FrameType::kWelcome));
  auto welcome = decode_welcome(body);
  if (!welcome) {
    return broken(welcome.error());
  }
  welcome_ = *welcome;
  if (welcome_.version != hello.version) {
    return broken({ErrorKind::kInvalid, 0, other_version(welcome_.version, hello.version)});
  }
  if ((welcome_.features & ~hello.features) != 0) {
    return broken({ErrorKind::kInvalid, 0, "the back-up uses features that it was not offered"});
  }
  if ((welcome_.size_bytes == 0) != (hello.role == Role::kVisitor)) {
    return broken({ErrorKind::kInvalid, 0, "the back-up does not say how large the disk is"});
  }
  if (hello.size_bytes != 0 && welcome_.size_bytes != hello.size_bytes) {
    return broken({ErrorKind::kInvalid, 0, "the back-up is of a disk of another size"});
  }
  channel_.set_connection(welcome_.connection);
  return {};
}

Unexpected StoreClient::broken(const Error& error) {
  is_broken_ = true;
  return Unexpected(error);
}

// A frame that came damaged says nothing about the store: the connection is as good as cut. (What
// is not known, before both have agreed on the protocol, may be another one.)
Error StoreClient::as_lost(Error error) const {
  const bool is_agreed = channel_.connection() != 0;
  const bool is_damaged =
      error.kind == ErrorKind::kCorrupt || (error.kind == ErrorKind::kInvalid && is_agreed);
  error.kind = is_damaged ? ErrorKind::kUnreachable : error.kind;
  return error;
}

Result<uint64_t> StoreClient::put(FrameType type, ConstByteSpan body) {
  if (auto sent = channel_.send(type, last_request_ + 1, body); !sent) {
    return broken(sent.error());
  }
  return ++last_request_;
}

Result<FrameType> StoreClient::hear(uint64_t request) {
  do {
    if (auto received = channel_.receive(heard_); !received) {
      return broken(as_lost(received.error()));
    }
    if (heard_.header.request != request || is_request(heard_.header.type)) {
      return broken({ErrorKind::kCorrupt, 0,
                     std::string(frame_name(heard_.header.type)) + ": not the answer that is due"});
    }
  } while (heard_.header.type == FrameType::kWorking);
  if (heard_.header.type != FrameType::kFailed) {
    return heard_.header.type;
  }
  auto error = decode_failed(heard_.body);
  if (!error || error->kind == ErrorKind::kUnreachable) {
    return broken(error ? *error : error.error());  // they have given the connection up
  }
  return Unexpected(as_theirs(*error));
}

Result<> StoreClient::expect(FrameType found, FrameType wanted) {
  return found == wanted
             ? Result<>()
             : broken({ErrorKind::kCorrupt, 0,
                       std::string(frame_name(found)) + ": not the answer that was asked for"});
}

Result<> StoreClient::send(FrameType type, ConstByteSpan body) {
  while (!unanswered_.empty() && (unanswered_.size() >= kUnansweredMax ||
                                  unanswered_bytes_ + body.size() > welcome_.window_bytes)) {
    CKPT_TRY(settle_one());
  }
  CKPT_ASSIGN(const uint64_t request, put(type, body));
  unanswered_.push_back({request, body.size()});
  unanswered_bytes_ += body.size();
  return {};
}

Result<> StoreClient::settle_one() {
  const Unanswered first = unanswered_.front();
  unanswered_.pop_front();
  unanswered_bytes_ -= first.body_bytes;
  CKPT_ASSIGN(const FrameType type, hear(first.request));
  return expect(type, FrameType::kDone);
}

Result<> StoreClient::settle() {
  Result<> outcome;
  while (!unanswered_.empty() && !is_broken_) {
    auto settled = settle_one();
    outcome = outcome ? settled : outcome;
  }
  return outcome;
}

// The request goes out before the answers are waited for: it costs one way there and back.
Result<ConstByteSpan> StoreClient::ask(FrameType type, ConstByteSpan body, FrameType answer) {
  CKPT_ASSIGN(const uint64_t request, put(type, body));
  const auto settled = settle();
  if (is_broken_) {
    return Unexpected(settled.error());
  }
  auto found = hear(request);
  CKPT_TRY(settled);
  CKPT_TRY(found);
  CKPT_TRY(expect(*found, answer));
  return ConstByteSpan(heard_.body);
}

// False: that was all.
Result<bool> StoreClient::pass_on(FrameType type, ContentSink& sink) {
  if (type == FrameType::kDone) {
    return false;
  }
  Result<> taken;
  if (type == FrameType::kHole) {
    const auto range = decode_hole(heard_.body);
    taken = range ? sink.zero(*range) : broken(range.error());
  } else {
    CKPT_TRY(expect(type, FrameType::kContent));
    const auto content = decode_content(heard_.body);
    taken = content ? sink.write(content->offset, content->data) : broken(content.error());
  }
  // What follows would have to be read and thrown away: the connection is given up instead.
  return taken ? Result<bool>(true) : broken(taken.error());
}

Result<> StoreClient::hear_content(uint64_t request, ContentSink& sink) {
  Result<bool> more = true;
  while (more && *more) {
    CKPT_ASSIGN(const FrameType found, hear(request));
    more = pass_on(found, sink);
  }
  return more ? Result<>() : Unexpected(more.error());
}

Result<> StoreClient::ask_content(FrameType type, ConstByteSpan body, ContentSink& sink) {
  CKPT_TRY(settle());
  CKPT_ASSIGN(const uint64_t request, put(type, body));
  return hear_content(request, sink);
}

Result<> StoreClient::ask_pieces(const AttachmentRequest& asked, PieceSink& sink) {
  CKPT_TRY(settle());
  CKPT_ASSIGN(const uint64_t request,
              put(FrameType::kReadAttachment, encode_read_attachment(asked)));
  for (;;) {
    CKPT_ASSIGN(const FrameType found, hear(request));
    if (found == FrameType::kDone) {
      return {};
    }
    CKPT_TRY(expect(found, FrameType::kPiece));
    const auto header = check_piece(heard_.body);
    const auto taken = header ? sink.take(*header, heard_.body) : Unexpected(header.error());
    if (!taken) {
      return broken(taken.error());
    }
  }
}

Result<> StoreClient::ask_export(const std::optional<Epoch>& number, ExportSink& sink) {
  CKPT_TRY(settle());
  CKPT_ASSIGN(const uint64_t request, put(FrameType::kExport, encode_export(number)));
  CKPT_ASSIGN(const FrameType first, hear(request));
  CKPT_TRY(expect(first, FrameType::kExportBegins));
  const auto begins = decode_export_begins(heard_.body);
  if (!begins) {
    return broken(begins.error());
  }
  if (auto begun = sink.begin(begins->checkpoint, begins->size_bytes); !begun) {
    return broken(begun.error());
  }
  return hear_content(request, sink);
}

}  // namespace ckpt
