// SPDX-License-Identifier: Apache-2.0
#include "tools/command.h"

#include "tools/format.h"

namespace ckpt {

Result<OpenedVolume> open_named(Context& context, const VolumeName& name) {
  CKPT_ASSIGN(OpenedVolume opened, context.opener(name));
  context.console.detail(opened.served ? "asking the server at " + opened.paths.state
                                       : "no server runs: opening " + opened.paths.state + " here");
  return opened;
}

Result<OpenedVolume> open_primary(Context& context, const VolumeName& name) {
  CKPT_ASSIGN(OpenedVolume opened, open_named(context, name));
  CKPT_TRY(require_primary(opened.paths));
  return opened;
}

std::string quoted_name(const CheckpointInfo& checkpoint) {
  return checkpoint.name.empty() ? "" : " \"" + printable(checkpoint.name) + "\"";
}

Json to_list_entry(const CheckpointInfo& checkpoint) {
  const Json all = to_json(checkpoint);
  Json entry;
  for (const char* field : {"checkpoint", "name", "time", "parent", "changed_bytes"}) {
    entry[field] = all[field];
  }
  entry["attachments"] = Json::array();
  for (const AttachmentInfo& attachment : checkpoint.attachments) {
    entry["attachments"].push_back(
        {{"name", attachment.name}, {"size_bytes", attachment.size_bytes}});
  }
  return entry;
}

Json to_checkpoint_result(const CheckpointOutcome& outcome) {
  const Json all = to_json(outcome);
  Json result;
  for (const char* field : {"checkpoint", "name", "state", "changed_bytes", "shipped_bytes",
                            "stall_us", "confirm_ms"}) {
    result[field] = all[field];
  }
  return result;
}

int64_t in_microseconds(std::chrono::nanoseconds time) {
  return std::chrono::duration_cast<std::chrono::microseconds>(time).count();
}

}  // namespace ckpt
