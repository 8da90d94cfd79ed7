// SPDX-License-Identifier: Apache-2.0
// Encoding: requests, answers and what they carry.
#include "plugin/control_codec.h"

namespace ckpt {
namespace {

template <typename Unit>
uint64_t count_of(std::chrono::nanoseconds time) {
  const auto count = std::chrono::duration_cast<Unit>(time).count();
  return count < 0 ? 0 : static_cast<uint64_t>(count);
}

Json request(const char* command) { return Json{{"schema", kControlSchema}, {"command", command}}; }

Json request_of(const StatusRequest& /*status*/) { return request("status"); }
Json request_of(const ListRequest& /*list*/) { return request("list"); }
Json request_of(const VerifyRequest& /*verify*/) { return request("verify"); }
Json request_of(const AcceptRequest& /*accept*/) { return request("accept"); }

Json request_of(const CheckpointRequest& checkpoint) {
  Json object = request("checkpoint");
  object["name"] = checkpoint.name;
  object["message"] = checkpoint.message;
  object["timeout_ms"] = count_of<std::chrono::milliseconds>(checkpoint.timeout);
  if (checkpoint.attachments != nullptr) {
    object["attachments"] = checkpoint.attachments->names();
  }
  if (checkpoint.on_cut) {
    object["tell_cut"] = true;
  }
  return object;
}

Json request_of(const AttachmentQuery& query) {
  Json object = request("attachment");
  object["checkpoint"] = query.checkpoint;
  object["name"] = query.name;
  return object;
}

Json request_of(const RollbackRequest& rollback) {
  Json object = request("rollback");
  object["checkpoint"] = rollback.checkpoint;
  object["clients"] = word_of(rollback.clients);
  object["dry_run"] = rollback.dry_run;
  return object;
}

Json request_of(const ExportRequest& exported) {
  Json object = request("export");
  object["checkpoint"] = exported.checkpoint;
  return object;
}

Json to_json(const std::vector<RelayState>& relays) {
  Json array = Json::array();
  for (const RelayState& relay : relays) {
    array.push_back(Json{{"address", relay.address},
                         {"checkpoint", relay.passed ? Json(relay.passed->value) : Json()},
                         {"error", relay.error}});
  }
  return array;
}

Json to_json(PrimaryPresence primary) {
  const char* const word = word_of(primary);
  return word == nullptr ? Json() : Json(word);
}

Json to_json(const std::vector<CheckpointId>& lineage) {
  Json array = Json::array();
  for (const CheckpointId& end : lineage) {
    array.push_back(Json{{"timeline", end.timeline.to_string()}, {"checkpoint", end.number.value}});
  }
  return array;
}

// Of a store that is known by a number alone (a server of an older version) the timeline is nil.
Json timeline_of(const std::optional<CheckpointInfo>& confirmed) {
  const bool is_known = confirmed && !confirmed->id.timeline.is_nil();
  return is_known ? Json(confirmed->id.timeline.to_string()) : Json();
}

Json to_json(const StoreStatus& store, uint64_t unshipped_bytes) {
  return Json{{"address", store.address},
              {"state", store.state},
              {"error", store.error},
              {"confirmed", store.confirmed ? Json(store.confirmed->id.number.value) : Json()},
              {"timeline", timeline_of(store.confirmed)},
              {"applied", store.applied.value},
              {"unshipped_bytes", unshipped_bytes},
              {"pending_bytes", store.pending_bytes},
              {"confirmed_bytes", store.confirmed_bytes},
              {"free_bytes", store.free_bytes},
              {"relays", to_json(store.relays)},
              {"primary", to_json(store.primary)}};
}

}  // namespace

std::string to_line(const Json& object) {
  return object.dump(-1, ' ', false, Json::error_handler_t::replace);
}

std::string encode_request(const ControlRequest& request) {
  return to_line(std::visit([](const auto& command) { return request_of(command); }, request));
}

std::string encode_progress(const ProgressAnswer& progress) {
  return to_line(Json{{"schema", kControlSchema},
                      {"type", "progress"},
                      {"done_bytes", progress.done_bytes},
                      {"total_bytes", progress.total_bytes}});
}

std::string encode_cut(const CutAnswer& answer) {
  return to_line(
      Json{{"schema", kControlSchema}, {"type", "cut"}, {"checkpoint", answer.checkpoint.value}});
}

std::string encode_export(const ExportAnswer& answer) {
  Json object{{"schema", kControlSchema}, {"type", "export"}};
  object.update(to_json(answer.checkpoint));
  object["size_bytes"] = answer.size_bytes;
  return to_line(object);
}

std::string encode_extent(const ExtentAnswer& extent) {
  return to_line(Json{{"schema", kControlSchema},
                      {"type", extent.is_hole ? "hole" : "data"},
                      {"offset", extent.range.offset},
                      {"length", extent.range.length}});
}

std::string encode_piece_line(const PieceAnswer& piece) {
  return to_line(Json{{"schema", kControlSchema},
                      {"type", "piece"},
                      {"index", piece.index},
                      {"length", piece.length}});
}

std::string encode_pieces_end() {
  return to_line(Json{{"schema", kControlSchema}, {"type", "end"}});
}

std::string encode_error(const Error& error) {
  return to_line(Json{{"schema", kControlSchema},
                      {"type", "error"},
                      {"kind", word_of(error.kind)},
                      {"exit_code", exit_code_of(error.kind)},
                      {"message", error.message()}});
}

std::string encode_result(const Json& fields) {
  Json object{{"schema", kControlSchema}, {"type", "result"}};
  object.update(fields);
  return to_line(object);
}

Json to_json(const AttachmentInfo& attachment) {
  return Json{{"name", attachment.name},
              {"size_bytes", attachment.size_bytes},
              {"stored_bytes", attachment.stored_bytes},
              {"digest", attachment.digest.to_string()}};
}

Json to_json(const CheckpointInfo& checkpoint) {
  Json attachments = Json::array();
  for (const AttachmentInfo& attachment : checkpoint.attachments) {
    attachments.push_back(to_json(attachment));
  }
  return Json{{"checkpoint", checkpoint.id.number.value},
              {"name", checkpoint.name},
              {"time", format_time(checkpoint.time)},
              {"parent", checkpoint.parent.number.value},
              {"changed_bytes", checkpoint.changed_bytes},
              {"shipped_bytes", checkpoint.shipped_bytes},
              {"message", checkpoint.message},
              {"digest", checkpoint.digest.to_string()},
              {"timeline", checkpoint.id.timeline.to_string()},
              {"parent_timeline", checkpoint.parent.timeline.to_string()},
              {"attachments", std::move(attachments)}};
}

Json to_json(const std::vector<CheckpointInfo>& checkpoints) {
  Json list = Json::array();
  for (const CheckpointInfo& checkpoint : checkpoints) {
    list.push_back(to_json(checkpoint));
  }
  return Json{{"checkpoints", std::move(list)}};
}

Json to_json(const CheckpointOutcome& outcome) {
  Json object = to_json(outcome.checkpoint);
  object["state"] = "confirmed";
  object["stall_us"] = count_of<std::chrono::microseconds>(outcome.stall);
  object["confirm_ms"] = count_of<std::chrono::milliseconds>(outcome.confirm);
  return object;
}

Json to_json(const RollbackOutcome& outcome) {
  Json object = to_json(outcome.checkpoint);
  object["restored_bytes"] = outcome.restored_bytes;
  object["elapsed_ms"] = count_of<std::chrono::milliseconds>(outcome.elapsed);
  object["fenced"] = outcome.fenced;
  return object;
}

Json to_json(const VerifyOutcome& outcome) {
  Json mismatches = Json::array();
  for (const ByteRange& range : outcome.mismatches) {
    mismatches.push_back({{"offset", range.offset}, {"length", range.length}});
  }
  Json object = to_json(outcome.checkpoint);
  object["checked_bytes"] = outcome.checked_bytes;
  object["skipped_bytes"] = outcome.skipped_bytes;
  object["mismatched_bytes"] = outcome.mismatched_bytes;
  object["mismatches"] = std::move(mismatches);
  return object;
}

Json to_json(const VolumeStatus& status) {
  const auto& last = status.last_checkpoint;
  const auto& store = status.store;
  return Json{{"state", status.state},
              {"role", status.role},
              {"image", status.image},
              {"uris", status.uris},
              {"name", status.name},
              {"attachments_folder", status.attachments_folder},
              {"volume", status.volume.to_string()},
              {"timeline", status.timeline.to_string()},
              {"lineage", to_json(status.lineage)},
              {"size_bytes", status.size_bytes},
              {"io", status.io},
              {"protected", status.protection},
              {"problem", status.problem},
              {"epoch", status.epoch.value},
              {"last_checkpoint", last ? to_json(*last) : Json()},
              {"changed_bytes", status.changed_bytes},
              {"preserved_blocks", status.preserved_blocks},
              {"stall_us_max", count_of<std::chrono::microseconds>(status.stall_max)},
              {"connections", status.connections},
              {"backup", store ? to_json(*store, status.unshipped_bytes) : Json()},
              {"checkpoint_interval_s", status.checkpoint_interval.count()},
              {"made_checkpoints", status.counts.checkpoints},
              {"void_checkpoints", status.counts.void_checkpoints},
              {"missed_checkpoints", status.counts.missed_checkpoints},
              {"rollbacks", status.counts.rollbacks},
              {"shipped_bytes", status.counts.shipped_bytes},
              {"confirm_ms_last", count_of<std::chrono::milliseconds>(status.counts.confirm_last)}};
}

}  // namespace ckpt
