// SPDX-License-Identifier: Apache-2.0
// What travels over the control socket, as JSON: one object a line, requests one way, answers the
// other. ckpt-tool prints the same objects with --json.
//
// Failure: nothing here throws, whatever the input; decoding says what is not valid (kInvalid for a
//          request, kCorrupt for an answer).
// Format:  docs/control-protocol.md
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "plugin/volume_api.h"

namespace ckpt {

inline constexpr int kControlSchema = 1;
// A request is a few names and numbers; the longest valid one has a message of 4096 escaped bytes.
inline constexpr size_t kRequestBytesMax = size_t{64} << 10U;
// A list of checkpoints is the longest answer; a client takes no more than this.
inline constexpr size_t kAnswerBytesMax = size_t{64} << 20U;
// Arrays and objects within one another.
inline constexpr size_t kNestingMax = 16;
// A week: far from overflow in nanoseconds, and nobody waits longer.
inline constexpr std::chrono::milliseconds kTimeoutMax = std::chrono::hours(24 * 7);

// Objects as they are printed: their fields stay in order.
using Json = nlohmann::ordered_json;
// Objects as they are read.
using ParsedJson = nlohmann::json;

struct StatusRequest {};
struct ListRequest {};
struct VerifyRequest {};
struct AcceptRequest {};
struct ExportRequest {
  std::string checkpoint = "last";  // a number, a name or "last"
};
struct AttachmentQuery {
  std::string checkpoint = "last";
  std::string name;
};
using ControlRequest = std::variant<StatusRequest, ListRequest, CheckpointRequest, RollbackRequest,
                                    VerifyRequest, AcceptRequest, ExportRequest, AttachmentQuery>;

// The last or an intermediate line of an answer.
struct ProgressAnswer {
  uint64_t done_bytes = 0;
  uint64_t total_bytes = 0;
};
// An export begins.
struct ExportAnswer {
  CheckpointInfo checkpoint;
  uint64_t size_bytes = 0;
};
// A range of the disk. Unless it is a hole its bytes, at most kPieceBytes, follow the line.
struct ExtentAnswer {
  ByteRange range;
  bool is_hole = false;
};
// A piece of an attachment, whose bytes follow the line: in an answer, or after a request.
struct CutAnswer {
  Epoch checkpoint;
};
struct PieceAnswer {
  uint32_t index = 0;  // of the attachment, among those of the request
  uint64_t length = 0;
};
using ControlAnswer = std::variant<ProgressAnswer, CutAnswer, ExportAnswer, ExtentAnswer,
                                   PieceAnswer, Error, ParsedJson>;

// Exit codes of ckpt-tool (design: "The contract outside") that do not come from an ErrorKind only.
inline constexpr int kExitDone = 0;
inline constexpr int kExitFailed = 1;
inline constexpr int kExitUsage = 2;
inline constexpr int kExitDegraded = 3;
inline constexpr int kExitMismatch = 8;
// The one table from kinds of errors to exit codes.
int exit_code_of(ErrorKind kind);

const char* word_of(ErrorKind kind);
std::optional<ErrorKind> error_kind_of(std::string_view word);
const char* word_of(ClientPolicy policy);
std::optional<ClientPolicy> client_policy_of(std::string_view word);
// nullptr where it was not said.
const char* word_of(PrimaryPresence primary);
std::optional<PrimaryPresence> primary_presence_of(std::string_view word);

// Lines are without their newline.
std::string encode_request(const ControlRequest& request);
Result<ControlRequest> decode_request(std::string_view line);

std::string encode_progress(const ProgressAnswer& progress);
std::string encode_cut(const CutAnswer& answer);
std::string encode_export(const ExportAnswer& answer);
std::string encode_extent(const ExtentAnswer& extent);
std::string encode_piece_line(const PieceAnswer& piece);
// After the last piece of a request. decode_piece_line() takes both, and gives nothing for it.
std::string encode_pieces_end();
Result<std::optional<PieceAnswer>> decode_piece_line(std::string_view line);
std::string encode_error(const Error& error);
// {"schema":1,"type":"result"} and these fields.
std::string encode_result(const Json& fields);
Result<ControlAnswer> decode_answer(std::string_view line);

// An object as one line. Bytes that are no UTF-8 are replaced.
std::string to_line(const Json& object);

Json to_json(const AttachmentInfo& attachment);
Json to_json(const CheckpointInfo& checkpoint);
Json to_json(const std::vector<CheckpointInfo>& checkpoints);
Json to_json(const CheckpointOutcome& outcome);
Json to_json(const RollbackOutcome& outcome);
Json to_json(const VerifyOutcome& outcome);
Json to_json(const VolumeStatus& status);

// The reverse. Times keep their milliseconds, durations what the field's unit says; of the store's
// confirmed checkpoint only its number is told.
Result<std::vector<CheckpointInfo>> decode_checkpoints(const ParsedJson& object);
Result<CheckpointOutcome> decode_checkpoint_outcome(const ParsedJson& object);
Result<RollbackOutcome> decode_rollback_outcome(const ParsedJson& object);
Result<VerifyOutcome> decode_verify_outcome(const ParsedJson& object);
Result<VolumeStatus> decode_volume_status(const ParsedJson& object);

}  // namespace ckpt
