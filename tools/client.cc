// SPDX-License-Identifier: Apache-2.0
#include "tools/client.h"

namespace ckpt {
namespace {

// A server answers these from memory; one that is stopped (SIGSTOP) never does.
constexpr std::chrono::milliseconds kShortTimeout{30000};
// Between the end of a checkpoint's own timeout and the answer that says so.
constexpr std::chrono::milliseconds kCheckpointGrace{30000};

constexpr const char* kSeeServer = ": see what the server (nbdkit) says, and try again";
constexpr const char* kMayExist = ": the checkpoint may exist: see `ckpt-tool list`";
constexpr const char* kMayGoOn =
    ": the rollback goes on if the server still runs, and otherwise when it is started again: see "
    "`ckpt-tool status`";

}  // namespace

Result<ParsedJson> RemoteVolume::ask(const Call& call, const Progress& progress) const {
  CKPT_ASSIGN(ControlConnection connection, ControlConnection::connect(state_path_));
  const auto silent = [this, &call](const std::string& what) {
    return fail(call.silence.kind,
                state_path_ + "/" + kControlSocketName + ": " + what + call.silence.advice);
  };
  if (const auto sent = connection.send_line(encode_request(call.request), kShortTimeout); !sent) {
    return silent(sent.error().message());
  }
  for (;;) {
    const auto line = connection.receive_line(kAnswerBytesMax, call.timeout);
    if (!line || !*line) {
      return silent(line ? "the server ended the connection" : line.error().message());
    }
    CKPT_ASSIGN(ControlAnswer answer, decode_answer(**line));
    if (const auto* error = std::get_if<Error>(&answer)) {
      return Unexpected(*error);
    }
    if (auto* result = std::get_if<ParsedJson>(&answer)) {
      return std::move(*result);
    }
    const auto& told = std::get<ProgressAnswer>(answer);
    // Leaving is how a client stops an operation.
    if (progress && !progress(told.done_bytes, told.total_bytes)) {
      return silent("stopped");
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
  CKPT_ASSIGN(
      const ParsedJson answer,
      ask({request, request.timeout + kCheckpointGrace, {ErrorKind::kTimeout, kMayExist}}, {}));
  return decode_checkpoint_outcome(answer);
}

Result<RollbackOutcome> RemoteVolume::roll_back(const RollbackRequest& request,
                                                const Progress& progress) {
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

Result<> RemoteVolume::accept() {
  CKPT_TRY(ask({AcceptRequest{}, kShortTimeout, {ErrorKind::kIo, kSeeServer}}, {}));
  return {};
}

}  // namespace ckpt
