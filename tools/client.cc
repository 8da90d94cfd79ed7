// SPDX-License-Identifier: Apache-2.0
#include "tools/client.h"

#include <cerrno>
#include <optional>

#include "plugin/control_attachments.h"

namespace ckpt {
namespace {

// A server answers these from memory; one that is stopped (SIGSTOP) never does.
constexpr std::chrono::milliseconds kShortTimeout{30000};
// Between the end of a checkpoint's own timeout and the answer that says so.
constexpr std::chrono::milliseconds kCheckpointGrace{30000};

// A checkpoint that is to be exported may have to be applied first, with what its store can take.
constexpr std::chrono::milliseconds kExportTimeout{600000};

constexpr const char* kSeeServer = ": see what the server (nbdkit) says, and try again";
constexpr const char* kMayExist = ": the checkpoint may exist: see `ckpt-tool list`";
constexpr const char* kMayGoOn =
    ": the rollback goes on if the server still runs, and otherwise when it is started again: see "
    "`ckpt-tool status`";

// A server that turns a client away says why and closes, whether it was asked anything yet or not.
std::optional<Error> refusal_after(const Error& sending, ControlConnection& connection) {
  if (sending.number != EPIPE && sending.number != ECONNRESET) {
    return std::nullopt;
  }
  const auto line = connection.receive_line(kAnswerBytesMax, kShortTimeout);
  const auto answer = line && *line ? decode_answer(**line) : Unexpected(sending);
  const Error* const refusal = answer ? std::get_if<Error>(&*answer) : nullptr;
  return refusal == nullptr ? std::nullopt : std::optional(*refusal);
}

// The error is the refusal, if there is one.
Result<> send_request(ControlConnection& connection, const ControlRequest& request) {
  auto sent = connection.send_line(encode_request(request), kShortTimeout);
  const auto refusal = sent ? std::nullopt : refusal_after(sent.error(), connection);
  return refusal ? Result<>(Unexpected(*refusal)) : sent;
}

Result<> receive_extent(ControlConnection& connection, const ExtentAnswer& extent,
                        std::vector<std::byte>& memory, ExportSink& sink) {
  if (extent.is_hole) {
    return sink.zero(extent.range);
  }
  const ByteSpan data = ByteSpan(memory).first(extent.range.length);
  if (auto received = connection.receive_bytes(data, kShortTimeout); !received) {
    return fail(ErrorKind::kIo, received.error().message() + kSeeServer);
  }
  return sink.write(extent.range.offset, data);
}

Result<> receive_piece(ControlConnection& connection, const PieceAnswer& piece, PieceSink& sink) {
  std::vector<std::byte> bytes(piece.length);
  if (auto received = connection.receive_bytes(bytes, kShortTimeout); !received) {
    return fail(ErrorKind::kIo, received.error().message() + kSeeServer);
  }
  CKPT_ASSIGN(const PieceHeader header, check_piece(bytes));
  return sink.take(header, bytes);
}

}  // namespace

Unexpected RemoteVolume::silent(const Call& call, const std::string& what) const {
  return fail(call.silence.kind,
              state_path_ + "/" + kControlSocketName + ": " + what + call.silence.advice);
}

Result<ParsedJson> RemoteVolume::ask(const Call& call, const Progress& progress) const {
  CKPT_ASSIGN(ControlConnection connection, ControlConnection::connect(state_path_));
  if (const auto sent = connection.send_line(encode_request(call.request), kShortTimeout); !sent) {
    const auto refusal = refusal_after(sent.error(), connection);
    return refusal ? Unexpected(*refusal) : silent(call, sent.error().message());
  }
  if (call.on_cut) {
    CKPT_TRY(hear_cut(connection, call));
  }
  if (call.attachments == nullptr) {
    return hear(connection, call, progress);
  }
  const auto sent = send_attachments(connection, *call.attachments, call.timeout);
  if (auto problem = call.attachments->problem()) {
    return Unexpected(*problem);
  }
  if (sent && *sent) {
    return hear(connection, call, progress);
  }
  // Without all of them there is no checkpoint; whoever takes no more has said why, or is gone.
  return hear(connection,
              {call.request, kShortTimeout, {ErrorKind::kVoid, ": there is no checkpoint"}},
              progress);
}

Result<> RemoteVolume::hear_cut(ControlConnection& connection, const Call& call) const {
  const auto line = connection.receive_line(kAnswerBytesMax, call.timeout);
  if (!line || !*line) {
    return silent(call, line ? "the server ended the connection" : line.error().message());
  }
  CKPT_ASSIGN(const ControlAnswer answer, decode_answer(**line));
  if (const auto* error = std::get_if<Error>(&answer)) {
    return Unexpected(*error);
  }
  const auto* cut = std::get_if<CutAnswer>(&answer);
  if (cut == nullptr) {
    return silent(call, "an answer that does not belong to the request");
  }
  call.on_cut(cut->checkpoint);
  return {};
}

Result<ParsedJson> RemoteVolume::hear(ControlConnection& connection, const Call& call,
                                      const Progress& progress) const {
  for (;;) {
    const auto line = connection.receive_line(kAnswerBytesMax, call.timeout);
    if (!line || !*line) {
      return silent(call, line ? "the server ended the connection" : line.error().message());
    }
    CKPT_ASSIGN(ControlAnswer answer, decode_answer(**line));
    if (const auto* error = std::get_if<Error>(&answer)) {
      return Unexpected(*error);
    }
    if (auto* result = std::get_if<ParsedJson>(&answer)) {
      return std::move(*result);
    }
    const auto* told = std::get_if<ProgressAnswer>(&answer);
    if (told == nullptr) {
      return silent(call, "an answer that does not belong to the request");
    }
    // Leaving is how a client stops an operation.
    if (progress && !progress(told->done_bytes, told->total_bytes)) {
      return silent(call, "stopped");
    }
  }
}

VolumeStatus RemoteVolume::status() {
  const auto answer = ask({StatusRequest{}, kShortTimeout, {ErrorKind::kIo, kSeeServer}}, {});
  Result<VolumeStatus> status =
      answer ? decode_volume_status(*answer) : Result<VolumeStatus>(Unexpected(answer.error()));
  if (!status) {
    VolumeStatus unknown;
    unknown.problem = status.error().message();
    return unknown;
  }
  return std::move(*status);
}

Result<std::vector<CheckpointInfo>> RemoteVolume::checkpoints() {
  CKPT_ASSIGN(const ParsedJson answer,
              ask({ListRequest{}, kShortTimeout, {ErrorKind::kIo, kSeeServer}}, {}));
  return decode_checkpoints(answer);
}

Result<CheckpointOutcome> RemoteVolume::checkpoint(const CheckpointRequest& request) {
  CKPT_ASSIGN(const ParsedJson answer, ask({request,
                                            request.timeout + kCheckpointGrace,
                                            {ErrorKind::kTimeout, kMayExist},
                                            request.attachments.get(),
                                            request.on_cut},
                                           {}));
  return decode_checkpoint_outcome(answer);
}

Result<RollbackOutcome> RemoteVolume::roll_back(const RollbackRequest& request,
                                                const Progress& progress) {
  if (request.rebuild) {
    return fail(ErrorKind::kBusy, state_path_ +
                                      ": a server runs: stop it before the image is rebuilt, or "
                                      "leave out --rebuild");
  }
  const Silence silence = request.dry_run ? Silence{ErrorKind::kIo, kSeeServer}
                                          : Silence{ErrorKind::kHalfway, kMayGoOn};
  CKPT_ASSIGN(const ParsedJson answer, ask({request, std::nullopt, silence}, progress));
  return decode_rollback_outcome(answer);
}

Result<VerifyOutcome> RemoteVolume::verify(const Progress& progress) {
  CKPT_ASSIGN(const ParsedJson answer,
              ask({VerifyRequest{}, std::nullopt, {ErrorKind::kIo, kSeeServer}}, progress));
  return decode_verify_outcome(answer);
}

Result<> RemoteVolume::export_checkpoint(const std::string& id, ExportSink& sink) {
  CKPT_ASSIGN(ControlConnection connection, ControlConnection::connect(state_path_));
  CKPT_TRY(send_request(connection, ExportRequest{id}));
  return receive_export(connection, sink);
}

// The server is trusted no more than any peer: every range is checked.
Result<> RemoteVolume::receive_export(ControlConnection& connection, ExportSink& sink) const {
  const std::string socket = state_path_ + "/" + kControlSocketName;
  std::vector<std::byte> data(kPieceBytes);
  std::optional<uint64_t> size_bytes;
  for (;;) {
    const auto line = connection.receive_line(kAnswerBytesMax, kExportTimeout);
    if (!line || !*line) {
      return fail(ErrorKind::kIo, socket + ": the export broke off" + kSeeServer);
    }
    CKPT_ASSIGN(const ControlAnswer answer, decode_answer(**line));
    if (const auto* error = std::get_if<Error>(&answer)) {
      return Unexpected(*error);
    }
    if (std::holds_alternative<ParsedJson>(answer) && size_bytes) {
      return {};
    }
    if (const auto* begun = std::get_if<ExportAnswer>(&answer); begun != nullptr && !size_bytes) {
      size_bytes = begun->size_bytes;
      CKPT_TRY(sink.begin(begun->checkpoint, begun->size_bytes));
      continue;
    }
    const auto* extent = std::get_if<ExtentAnswer>(&answer);
    if (extent == nullptr || !size_bytes || extent->range.end() > *size_bytes) {
      return fail(ErrorKind::kCorrupt, socket + ": an answer that does not belong to an export");
    }
    CKPT_TRY(receive_extent(connection, *extent, data, sink));
  }
}

Result<> RemoteVolume::read_attachment(const std::string& id, const std::string& name,
                                       PieceSink& sink) {
  const Call call{AttachmentQuery{id, name}, kShortTimeout, {ErrorKind::kIo, kSeeServer}};
  CKPT_ASSIGN(ControlConnection connection, ControlConnection::connect(state_path_));
  CKPT_TRY(send_request(connection, call.request));
  for (;;) {
    const auto line = connection.receive_line(kAnswerBytesMax, kExportTimeout);
    if (!line || !*line) {
      return silent(call, "the attachment broke off");
    }
    CKPT_ASSIGN(const ControlAnswer answer, decode_answer(**line));
    if (const auto* error = std::get_if<Error>(&answer)) {
      return Unexpected(*error);
    }
    if (std::holds_alternative<ParsedJson>(answer)) {
      return {};
    }
    const auto* piece = std::get_if<PieceAnswer>(&answer);
    if (piece == nullptr) {
      return silent(call, "an answer that does not belong to an attachment");
    }
    CKPT_TRY(receive_piece(connection, *piece, sink));
  }
}

Result<> RemoteVolume::accept() {
  CKPT_TRY(ask({AcceptRequest{}, kShortTimeout, {ErrorKind::kIo, kSeeServer}}, {}));
  return {};
}

}  // namespace ckpt
