// SPDX-License-Identifier: Apache-2.0
// ckpt-tool show
#include "plugin/checkpoint_name.h"
#include "tools/command.h"
#include "tools/format.h"

namespace ckpt {
namespace {

constexpr CommandHelp kShowHelp{"show", "Everything known about one checkpoint",
                                "ID is a number, a name, or `last`.\n\n"
                                "  ckpt-tool show disk.img last"};

std::string parent_of(const CheckpointInfo& checkpoint) {
  const uint64_t number = checkpoint.parent.number.value;
  return number == 0 ? "none" : std::to_string(number);
}

std::string describe(const AttachmentInfo& attachment) {
  return printable(attachment.name) + ", " + format_bytes_exact(attachment.size_bytes) +
         ", stored as " + format_bytes(attachment.stored_bytes);
}

// A line each.
void add_attachments(LabelledRows& rows, const std::vector<AttachmentInfo>& attachments) {
  if (attachments.empty()) {
    rows.push_back({"attachments", "none"});
  }
  for (const AttachmentInfo& attachment : attachments) {
    rows.push_back({"attachment", describe(attachment)});
  }
}

void say(Console& console, const CheckpointInfo& checkpoint) {
  LabelledRows rows{
      {"checkpoint", std::to_string(checkpoint.id.number.value)},
      {"name", checkpoint.name.empty() ? "none" : printable(checkpoint.name)},
      {"message", checkpoint.message.empty() ? "none" : printable(checkpoint.message)},
      {"time", format_past(checkpoint.time, system_clock().wall())},
      {"parent", parent_of(checkpoint)},
      {"changed", format_bytes_exact(checkpoint.changed_bytes) + " since the parent"},
      {"shipped", format_bytes_exact(checkpoint.shipped_bytes)},
      {"digest", checkpoint.digest.to_string()},
      {"timeline", checkpoint.id.timeline.to_string()},
  };
  add_attachments(rows, checkpoint.attachments);
  console.print(format_rows(rows));
}

Result<int> show(Context& context, const VolumeName& name, const std::string& id) {
  CKPT_ASSIGN(const OpenedVolume opened, open_named(context, name));
  CKPT_ASSIGN(const std::vector<CheckpointInfo> checkpoints, opened.volume->checkpoints());
  CKPT_ASSIGN(const CheckpointInfo checkpoint, find_checkpoint(checkpoints, id));
  Json result = to_list_entry(checkpoint);
  result["message"] = checkpoint.message;
  result["digest"] = checkpoint.digest.to_string();
  result["attachments"] = to_json(checkpoint)["attachments"];
  context.console.result(result);
  say(context.console, checkpoint);
  return kExitDone;
}

}  // namespace

void add_show(CLI::App& app, Invocation& invocation) {
  const auto id = std::make_shared<std::string>();
  Arguments arguments = add_command(
      app, invocation, kShowHelp,
      [id](Context& context, const VolumeName& name) { return show(context, name, *id); });
  arguments.add_word("ID", *id, "Its number, its name, or `last`");
}

}  // namespace ckpt
