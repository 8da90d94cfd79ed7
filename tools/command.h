// SPDX-License-Identifier: Apache-2.0
// What the subcommands have in common. Each is a file of its own: its options, its help, its act.
#pragma once

#include <chrono>
#include <functional>
#include <string>

#include "tools/arguments.h"
#include "tools/console.h"
#include "tools/open_volume.h"

namespace ckpt {

// What an act works with. Both outlive it.
struct Context {
  Console& console;
  const VolumeOpener& opener;
};

// What a subcommand does; the exit code, or why not.
using Act = std::function<Result<int>(Context&, const VolumeName&)>;

// One call of the tool, filled in while the arguments are parsed.
struct Invocation {
  Verbosity verbosity;
  VolumeName volume;
  bool has_volume = false;
  std::vector<std::string> rest;  // what follows "--", for a command that takes it
  bool takes_rest = false;
  Act act;  // of the chosen subcommand
};

// The subcommands; each takes a reference to the invocation, which outlives the app.
void add_status(CLI::App& app, Invocation& invocation);
void add_checkpoint(CLI::App& app, Invocation& invocation);
void add_list(CLI::App& app, Invocation& invocation);
void add_show(CLI::App& app, Invocation& invocation);
void add_rollback(CLI::App& app, Invocation& invocation);
void add_accept(CLI::App& app, Invocation& invocation);
void add_verify(CLI::App& app, Invocation& invocation);
void add_promote(CLI::App& app, Invocation& invocation);
void add_rejoin(CLI::App& app, Invocation& invocation);
void add_switch(CLI::App& app, Invocation& invocation);
void add_standby(CLI::App& app, Invocation& invocation);
void add_forget(CLI::App& app, Invocation& invocation);
void add_export(CLI::App& app, Invocation& invocation);
void add_doctor(CLI::App& app, Invocation& invocation);
void add_metrics(CLI::App& app, Invocation& invocation);
void add_report(CLI::App& app, Invocation& invocation);
void add_restore(CLI::App& app, Invocation& invocation);
void add_run(CLI::App& app, Invocation& invocation);
void add_vm(CLI::App& app, Invocation& invocation);
void add_hook(CLI::App& app, Invocation& invocation);
// And of `vm`.
void add_checkpoint_of_vm(CLI::App& vm, Invocation& invocation);
void add_rollback_of_vm(CLI::App& vm, Invocation& invocation);

// What a subcommand is called and what its help says: one line in the list, then what it does.
struct CommandHelp {
  const char* name;
  const char* line;
  const char* text;
  bool needs_volume = true;
  bool takes_rest = false;  // words after "--" are another program's
};
// These two are in arguments.cc, which includes CLI11.
// A subcommand with VOLUME, which may be left out where it is not needed, and the options that all
// have.
Arguments add_command(CLI::App& app, Invocation& invocation, const CommandHelp& help, Act act);
// A subcommand that has subcommands of its own.
CLI::App& add_command_group(CLI::App& app, const CommandHelp& help);
// Options that all commands have, here for one.
void add_common_options(CLI::App& app, Invocation& invocation);

// Opens the volume that the user named, and says how when verbose.
Result<OpenedVolume> open_named(Context& context, const VolumeName& name);
// The same, for what needs a primary: a back-up by itself is refused (kInvalid).
Result<OpenedVolume> open_primary(Context& context, const VolumeName& name);

// `"before the upgrade"` after a number, or nothing.
std::string quoted_name(const CheckpointInfo& checkpoint);
// The fields of a checkpoint that `list` tells.
Json to_list_entry(const CheckpointInfo& checkpoint);
// Says that it exists, and how much it is: "4.0 KiB changed". False: with -q it is its number, and
// no more is to be said.
bool say_made(Console& console, const CheckpointInfo& checkpoint, const std::string& amount);
// The fields of a checkpoint that was made that scripts rely on, and no others.
Json to_checkpoint_result(const CheckpointOutcome& outcome);
// A time as results have it.
int64_t in_microseconds(std::chrono::nanoseconds time);

}  // namespace ckpt
