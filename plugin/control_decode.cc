// SPDX-License-Identifier: Apache-2.0
// Decoding of requests, answers and what they carry.
#include <limits>

#include "plugin/checkpoint_name.h"
#include "plugin/control_fields.h"

namespace ckpt {
namespace {

Fields answer_fields(const ParsedJson& object) { return {object, ErrorKind::kCorrupt}; }

std::vector<AttachmentInfo> take_attachments(Fields& fields) {
  std::vector<AttachmentInfo> attachments;
  if (fields.optional("attachments") == nullptr) {
    return attachments;  // of a server that knows none
  }
  for (const ParsedJson& object : fields.array("attachments")) {
    Fields one = answer_fields(object);
    AttachmentInfo info;
    info.name = one.text("name");
    info.size_bytes = one.number("size_bytes");
    info.stored_bytes = one.number("stored_bytes");
    info.digest = one.digest("digest");
    auto taken = one.finish(std::move(info));
    fields.take(taken ? Result<>() : Result<>(Unexpected(taken.error())));
    if (taken) {
      attachments.push_back(std::move(*taken));
    }
  }
  return attachments;
}

CheckpointInfo take_checkpoint(Fields& fields) {
  CheckpointInfo checkpoint;
  checkpoint.id = {fields.uuid("timeline"), Epoch{fields.number("checkpoint")}};
  checkpoint.parent = {fields.uuid("parent_timeline"), Epoch{fields.number("parent")}};
  checkpoint.digest = fields.digest("digest");
  checkpoint.time = fields.time("time");
  checkpoint.name = fields.text("name");
  checkpoint.message = fields.text("message");
  checkpoint.changed_bytes = fields.number("changed_bytes");
  checkpoint.shipped_bytes = fields.number("shipped_bytes");
  checkpoint.attachments = take_attachments(fields);
  return checkpoint;
}

Result<CheckpointInfo> decode_checkpoint(const ParsedJson& object) {
  Fields fields = answer_fields(object);
  CheckpointInfo checkpoint = take_checkpoint(fields);
  return fields.finish(std::move(checkpoint));
}

// Of a server that does not tell: none.
Result<std::vector<RelayState>> take_relays(Fields& fields) {
  std::vector<RelayState> relays;
  if (fields.optional("relays") == nullptr) {
    return relays;
  }
  for (const ParsedJson& element : fields.array("relays")) {
    Fields relay = answer_fields(element);
    RelayState state;
    state.address = relay.text("address");
    if (relay.optional("checkpoint") != nullptr) {
      state.passed = Epoch{relay.number("checkpoint")};
    }
    state.error = relay.text("error");
    CKPT_ASSIGN(relays.emplace_back(), relay.finish(std::move(state)));
  }
  return relays;
}

// Of a server that does not tell, or does not know: not said.
PrimaryPresence take_primary(Fields& fields) {
  if (fields.optional("primary") == nullptr) {
    return PrimaryPresence::kNotSaid;
  }
  const auto said = primary_presence_of(fields.text("primary"));
  if (!said) {
    fields.refuse("primary", "is no state of a primary");
  }
  return said.value_or(PrimaryPresence::kNotSaid);
}

Result<StoreStatus> decode_store(const ParsedJson& object) {
  Fields fields = answer_fields(object);
  StoreStatus store;
  store.address = fields.text("address");
  store.state = fields.text("state");
  store.error = fields.text("error");
  if (fields.optional("confirmed") != nullptr) {
    store.confirmed.emplace().id.number = Epoch{fields.number("confirmed")};
  }
  if (fields.optional("timeline") != nullptr && store.confirmed) {
    store.confirmed->id.timeline = fields.uuid("timeline");
  }
  store.applied = Epoch{fields.number("applied")};
  store.pending_bytes = fields.number("pending_bytes");
  store.confirmed_bytes = fields.number("confirmed_bytes");
  store.free_bytes = fields.number("free_bytes");
  CKPT_ASSIGN(store.relays, take_relays(fields));
  store.primary = take_primary(fields);
  return fields.finish(std::move(store));
}

std::vector<std::string> take_uris(Fields& fields) {
  std::vector<std::string> uris;
  if (fields.optional("uris") == nullptr) {
    return uris;  // of a server that does not tell
  }
  for (const ParsedJson& uri : fields.array("uris")) {
    const auto* const text = uri.get_ptr<const std::string*>();
    if (text == nullptr) {
      fields.refuse("uris", "has an element that is no text");
    } else {
      uris.push_back(*text);
    }
  }
  return uris;
}

std::vector<CheckpointId> take_lineage(Fields& fields) {
  std::vector<CheckpointId> lineage;
  if (fields.optional("lineage") == nullptr) {
    return lineage;  // of a server that does not tell
  }
  for (const ParsedJson& element : fields.array("lineage")) {
    Fields end = answer_fields(element);
    const CheckpointId id{end.uuid("timeline"), Epoch{end.number("checkpoint")}};
    const auto whole = end.finish(id);
    if (!whole) {
      fields.refuse("lineage", "has an element that is no end of a timeline");
      break;
    }
    lineage.push_back(*whole);
  }
  return lineage;
}

EventCounts take_counts(Fields& fields) {
  EventCounts counts;
  counts.checkpoints = fields.number("made_checkpoints");
  counts.void_checkpoints = fields.number("void_checkpoints");
  counts.missed_checkpoints = fields.number("missed_checkpoints");
  counts.rollbacks = fields.number("rollbacks");
  counts.shipped_bytes = fields.number("shipped_bytes");
  counts.confirm_last = fields.duration<std::chrono::milliseconds>("confirm_ms_last");
  return counts;
}

std::shared_ptr<AttachmentFeed> take_feed(Fields& fields) {
  std::vector<std::string> names;
  for (const ParsedJson& name : fields.array("attachments")) {
    names.push_back(name.is_string() ? *name.get_ptr<const std::string*>() : std::string());
  }
  auto feed = AttachmentFeed::make(std::move(names));
  if (!feed) {
    fields.refuse("attachments", feed.error().message());
  }
  return feed ? *feed : nullptr;
}

Result<ControlRequest> decode_checkpoint_request(Fields& fields) {
  fields.only({"schema", "command", "name", "message", "timeout_ms", "attachments", "tell_cut"});
  CheckpointRequest request;
  request.name = fields.optional("name") != nullptr ? fields.text("name") : "";
  request.message = fields.optional("message") != nullptr ? fields.text("message") : "";
  if (fields.optional("timeout_ms") != nullptr) {
    const uint64_t most = static_cast<uint64_t>(kTimeoutMax.count());
    request.timeout =
        std::chrono::milliseconds(static_cast<int64_t>(fields.number("timeout_ms", most)));
  }
  if (fields.optional("attachments") != nullptr) {
    request.attachments = take_feed(fields);
  }
  if (fields.optional("tell_cut") != nullptr && fields.flag("tell_cut")) {
    request.on_cut = [](Epoch) {};  // for whoever has the connection to fill in
  }
  fields.take(check_name(request.name));
  fields.take(check_message(request.message));
  return fields.finish<ControlRequest>(std::move(request));
}

void check_id(Fields& fields, const std::string& id) {
  if (id.empty() || id.size() > kNameBytesMax) {
    fields.refuse("checkpoint", "is no number, name or \"last\"");
  }
}

Result<ControlRequest> decode_rollback_request(Fields& fields) {
  fields.only({"schema", "command", "checkpoint", "clients", "dry_run"});
  RollbackRequest request;
  if (fields.optional("checkpoint") != nullptr) {
    request.checkpoint = fields.text("checkpoint");
  }
  if (fields.optional("clients") != nullptr) {
    const auto policy = client_policy_of(fields.text("clients"));
    request.clients = policy.value_or(ClientPolicy::kRefuse);
    if (!policy) {
      fields.refuse("clients", "is not refuse, fence or keep");
    }
  }
  request.dry_run = fields.optional("dry_run") != nullptr && fields.flag("dry_run");
  check_id(fields, request.checkpoint);
  return fields.finish<ControlRequest>(std::move(request));
}

Result<ControlRequest> decode_export_request(Fields& fields) {
  fields.only({"schema", "command", "checkpoint"});
  ExportRequest request;
  if (fields.optional("checkpoint") != nullptr) {
    request.checkpoint = fields.text("checkpoint");
  }
  check_id(fields, request.checkpoint);
  return fields.finish<ControlRequest>(std::move(request));
}

Result<ControlRequest> decode_attachment_query(Fields& fields) {
  fields.only({"schema", "command", "checkpoint", "name"});
  AttachmentQuery query;
  if (fields.optional("checkpoint") != nullptr) {
    query.checkpoint = fields.text("checkpoint");
  }
  query.name = fields.text("name");
  check_id(fields, query.checkpoint);
  return fields.finish<ControlRequest>(std::move(query));
}

Result<ControlRequest> decode_plain_request(Fields& fields, ControlRequest request) {
  fields.only({"schema", "command"});
  return fields.finish(std::move(request));
}

Result<ControlAnswer> decode_error_answer(const ParsedJson& object) {
  Fields fields = answer_fields(object);
  // A word that a later server knows and we do not is some failure.
  const ErrorKind kind = error_kind_of(fields.text("kind")).value_or(ErrorKind::kIo);
  Error error{kind, 0, fields.text("message")};
  return fields.finish<ControlAnswer>(std::move(error));
}

Result<ControlAnswer> decode_progress_answer(const ParsedJson& object) {
  Fields fields = answer_fields(object);
  const ProgressAnswer progress{fields.number("done_bytes"), fields.number("total_bytes")};
  return fields.finish<ControlAnswer>(progress);
}

Result<ControlAnswer> decode_cut_answer(const ParsedJson& object) {
  Fields fields = answer_fields(object);
  const CutAnswer answer{Epoch{fields.number("checkpoint")}};
  return fields.finish<ControlAnswer>(answer);
}

Result<ControlAnswer> decode_export_answer(const ParsedJson& object) {
  Fields fields = answer_fields(object);
  ExportAnswer answer;
  answer.checkpoint = take_checkpoint(fields);
  answer.size_bytes = fields.number("size_bytes", kDiskBytesMax);
  return fields.finish<ControlAnswer>(std::move(answer));
}

Result<ControlAnswer> decode_extent_answer(const ParsedJson& object, bool is_hole) {
  Fields fields = answer_fields(object);
  const uint64_t most = is_hole ? kDiskBytesMax : kPieceBytes;
  const ByteRange range{fields.number("offset", kDiskBytesMax), fields.number("length", most)};
  return fields.finish<ControlAnswer>(ExtentAnswer{range, is_hole});
}

Result<PieceAnswer> decode_piece(Fields& fields) {
  const auto index = static_cast<uint32_t>(fields.number("index", kAttachmentsMax - 1));
  return fields.finish(
      PieceAnswer{index, fields.number("length", kPieceHeaderBytes + kPieceBytes)});
}

}  // namespace

Result<std::optional<PieceAnswer>> decode_piece_line(std::string_view line) {
  CKPT_ASSIGN(const ParsedJson object, parse_object(line, kRequestBytesMax, ErrorKind::kInvalid));
  Fields fields(object, ErrorKind::kInvalid);
  const std::string type = fields.text("type");
  if (type == "end") {
    return fields.finish(std::optional<PieceAnswer>());
  }
  if (type != "piece") {
    fields.refuse("type", "is not piece or end");
  }
  CKPT_ASSIGN(const PieceAnswer piece, decode_piece(fields));
  return std::optional(piece);
}

Result<ControlRequest> decode_request(std::string_view line) {
  CKPT_ASSIGN(const ParsedJson object, parse_object(line, kRequestBytesMax, ErrorKind::kInvalid));
  Fields fields(object, ErrorKind::kInvalid);
  const std::string command = fields.text("command");
  if (command == "status") {
    return decode_plain_request(fields, StatusRequest{});
  }
  if (command == "list") {
    return decode_plain_request(fields, ListRequest{});
  }
  if (command == "verify") {
    return decode_plain_request(fields, VerifyRequest{});
  }
  if (command == "accept") {
    return decode_plain_request(fields, AcceptRequest{});
  }
  if (command == "checkpoint") {
    return decode_checkpoint_request(fields);
  }
  if (command == "rollback") {
    return decode_rollback_request(fields);
  }
  if (command == "export") {
    return decode_export_request(fields);
  }
  if (command == "attachment") {
    return decode_attachment_query(fields);
  }
  fields.refuse("command",
                "is not status, list, verify, accept, checkpoint, rollback, export or attachment");
  return fields.finish<ControlRequest>(StatusRequest{});
}

Result<ControlAnswer> decode_answer(std::string_view line) {
  CKPT_ASSIGN(ParsedJson object, parse_object(line, kAnswerBytesMax, ErrorKind::kCorrupt));
  Fields fields = answer_fields(object);
  const std::string type = fields.text("type");
  if (type == "progress") {
    return decode_progress_answer(object);
  }
  if (type == "error") {
    return decode_error_answer(object);
  }
  if (type == "cut") {
    return decode_cut_answer(object);
  }
  if (type == "export") {
    return decode_export_answer(object);
  }
  if (type == "data" || type == "hole") {
    return decode_extent_answer(object, type == "hole");
  }
  if (type == "piece") {
    CKPT_ASSIGN(const PieceAnswer piece, decode_piece(fields));
    return ControlAnswer(piece);
  }
  if (type != "result") {
    fields.refuse("type", "is not progress, cut, export, data, hole, piece, result or error");
  }
  return fields.finish<ControlAnswer>(std::move(object));
}

Result<std::vector<CheckpointInfo>> decode_checkpoints(const ParsedJson& object) {
  Fields fields = answer_fields(object);
  std::vector<CheckpointInfo> checkpoints;
  for (const ParsedJson& element : fields.array("checkpoints")) {
    CKPT_ASSIGN(CheckpointInfo checkpoint, decode_checkpoint(element));
    checkpoints.push_back(std::move(checkpoint));
  }
  return fields.finish(std::move(checkpoints));
}

Result<CheckpointOutcome> decode_checkpoint_outcome(const ParsedJson& object) {
  Fields fields = answer_fields(object);
  CheckpointOutcome outcome;
  outcome.checkpoint = take_checkpoint(fields);
  outcome.stall = fields.duration<std::chrono::microseconds>("stall_us");
  outcome.confirm = fields.duration<std::chrono::milliseconds>("confirm_ms");
  return fields.finish(std::move(outcome));
}

Result<RollbackOutcome> decode_rollback_outcome(const ParsedJson& object) {
  Fields fields = answer_fields(object);
  RollbackOutcome outcome;
  outcome.checkpoint = take_checkpoint(fields);
  outcome.restored_bytes = fields.number("restored_bytes");
  outcome.elapsed = fields.duration<std::chrono::milliseconds>("elapsed_ms");
  outcome.fenced = fields.flag("fenced");
  return fields.finish(std::move(outcome));
}

Result<VerifyOutcome> decode_verify_outcome(const ParsedJson& object) {
  Fields fields = answer_fields(object);
  VerifyOutcome outcome;
  outcome.checkpoint = take_checkpoint(fields);
  outcome.checked_bytes = fields.number("checked_bytes");
  outcome.skipped_bytes = fields.number("skipped_bytes");
  outcome.mismatched_bytes = fields.number("mismatched_bytes");
  for (const ParsedJson& element : fields.array("mismatches")) {
    Fields range = answer_fields(element);
    const ByteRange mismatch{range.number("offset"), range.number("length")};
    CKPT_ASSIGN(const ByteRange whole, range.finish(mismatch));
    outcome.mismatches.push_back(whole);
  }
  return fields.finish(std::move(outcome));
}

Result<VolumeStatus> decode_volume_status(const ParsedJson& object) {
  Fields fields = answer_fields(object);
  VolumeStatus status;
  status.state = fields.text("state");
  status.role = fields.text("role");
  status.image = fields.text("image");
  status.uris = take_uris(fields);
  if (fields.optional("name") != nullptr) {
    status.name = fields.text("name");
  }
  if (fields.optional("attachments_folder") != nullptr) {
    status.attachments_folder = fields.text("attachments_folder");
  }
  status.volume = fields.uuid("volume");
  status.timeline = fields.uuid("timeline");
  status.lineage = take_lineage(fields);
  status.size_bytes = fields.number("size_bytes");
  status.io = fields.text("io");
  status.protection = fields.flag("protected");
  status.problem = fields.text("problem");
  status.epoch = Epoch{fields.number("epoch")};
  status.changed_bytes = fields.number("changed_bytes");
  status.preserved_blocks = fields.number("preserved_blocks");
  status.stall_max = fields.duration<std::chrono::microseconds>("stall_us_max");
  status.connections =
      static_cast<uint32_t>(fields.number("connections", std::numeric_limits<uint32_t>::max()));
  status.checkpoint_interval = std::chrono::duration_cast<std::chrono::seconds>(
      fields.duration<std::chrono::seconds>("checkpoint_interval_s"));
  status.counts = take_counts(fields);
  if (const ParsedJson* last = fields.optional("last_checkpoint")) {
    CKPT_ASSIGN(status.last_checkpoint, decode_checkpoint(*last));
  }
  if (const ParsedJson* backup = fields.optional("backup")) {
    CKPT_ASSIGN(status.store, decode_store(*backup));
    Fields unshipped = answer_fields(*backup);
    status.unshipped_bytes = unshipped.number("unshipped_bytes");
    CKPT_TRY(unshipped.finish(0));
  }
  return fields.finish(std::move(status));
}

}  // namespace ckpt
