// SPDX-License-Identifier: Apache-2.0
// ckpt-tool list
#include <fmt/format.h>

#include "plugin/remote_volumes.h"
#include "tools/command.h"
#include "tools/format.h"

namespace ckpt {
namespace {

constexpr CommandHelp kListHelp{
    "list", "The checkpoints that are kept, oldest first",
    "Numbers are never used twice; gaps are legal: a checkpoint that failed took one.\n"
    "CHANGED is what differs from the parent. With -q: the numbers alone.\n\n"
    "  ckpt-tool list disk.img\n\n"
    "Of a backupd, HOST:PORT or unix:PATH, the volumes that it has, with their names.\n\n"
    "  ckpt-tool list backup-host:7000"};

std::vector<std::string> row_of(const CheckpointInfo& checkpoint, WallTime now) {
  return {std::to_string(checkpoint.id.number.value), format_past(checkpoint.time, now),
          format_bytes(checkpoint.changed_bytes), printable(checkpoint.name)};
}

void say(Console& console, const std::vector<CheckpointInfo>& checkpoints) {
  if (console.verbosity().quiet) {
    for (const CheckpointInfo& checkpoint : checkpoints) {
      console.print(fmt::format("{}\n", checkpoint.id.number.value));
    }
    return;
  }
  if (checkpoints.empty()) {
    console.print("no checkpoint is confirmed yet\n");
    return;
  }
  std::vector<std::vector<std::string>> rows{{"ID", "TIME", "CHANGED", "NAME"}};
  const WallTime now = system_clock().wall();
  for (const CheckpointInfo& checkpoint : checkpoints) {
    rows.push_back(row_of(checkpoint, now));
  }
  console.print(format_table(rows, {true, false, true, false}));
}

void say_volumes(Console& console, const std::vector<NamedVolume>& volumes) {
  if (console.verbosity().quiet) {
    for (const NamedVolume& one : volumes) {
      console.print(one.volume.to_string() + "\n");
    }
    return;
  }
  if (volumes.empty()) {
    console.print("no volume is here that you may know of\n");
    return;
  }
  std::vector<std::vector<std::string>> rows{{"VOLUME", "SIZE", "NAME"}};
  for (const NamedVolume& one : volumes) {
    rows.push_back({one.volume.to_string(),
                    one.size_bytes == 0 ? "damaged" : format_bytes(one.size_bytes),
                    printable(one.name)});
  }
  console.print(format_table(rows, {false, true, false}));
}

Result<int> list_volumes(Context& context, const RemoteOptions& options) {
  CKPT_ASSIGN(const auto volumes, list_remote_volumes(options, ""));
  Json entries = Json::array();
  for (const NamedVolume& one : volumes) {
    entries.push_back(
        {{"volume", one.volume.to_string()}, {"name", one.name}, {"size_bytes", one.size_bytes}});
  }
  context.console.result({{"volumes", entries}});
  say_volumes(context.console, volumes);
  return kExitDone;
}

Result<int> list(Context& context, const VolumeName& name) {
  if (const auto named = find_volume(name); named && named->is_backupd()) {
    return list_volumes(context, *named->remote);
  }
  CKPT_ASSIGN(const OpenedVolume opened, open_named(context, name));
  CKPT_ASSIGN(const std::vector<CheckpointInfo> checkpoints, opened.volume->checkpoints());
  Json entries = Json::array();
  for (const CheckpointInfo& checkpoint : checkpoints) {
    entries.push_back(to_list_entry(checkpoint));
  }
  context.console.result({{"checkpoints", entries}});
  say(context.console, checkpoints);
  return kExitDone;
}

}  // namespace

void add_list(CLI::App& app, Invocation& invocation) {
  add_command(app, invocation, kListHelp, list);
}

}  // namespace ckpt
