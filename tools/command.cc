// SPDX-License-Identifier: Apache-2.0
#include "tools/command.h"

#include "tools/format.h"

namespace ckpt {

void add_common_options(CLI::App& app, Invocation& invocation) {
  constexpr const char* kGroup = "Options of every command";
  app.set_help_flag("-h,--help", "Says this and exits")->group(kGroup);
  app.add_flag("--json", invocation.verbosity.json,
               "Results as one JSON object a line; the last has \"type\" \"result\" or \"error\"")
      ->group(kGroup);
  app.add_flag("-q,--quiet", invocation.verbosity.quiet,
               "No progress and no remarks; results as short as they can be")
      ->group(kGroup);
  app.add_flag("-v,--verbose", invocation.verbosity.verbose, "Details too")->group(kGroup);
  app.add_option("--state", invocation.volume.state,
                 "The volume's state directory, where it is not IMAGE.ckpt")
      ->type_name("DIR")
      ->group(kGroup);
  app.add_option("--backup", invocation.volume.backup,
                 "Where the back-up is, as the plugin's backup=; asked only while no server runs")
      ->type_name("WHERE")
      ->group(kGroup)
      ->capture_default_str();
}

CLI::App& add_command(CLI::App& app, Invocation& invocation, const CommandHelp& help) {
  CLI::App* command = app.add_subcommand(help.name, help.line);
  command->footer(help.text)->group("Commands");
  command->add_option("VOLUME", invocation.volume.path, "The primary image, or its state directory")
      ->required(help.needs_volume)
      ->type_name("");
  add_common_options(*command, invocation);
  return *command;
}

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
  return entry;
}

}  // namespace ckpt
