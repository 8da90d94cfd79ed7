// SPDX-License-Identifier: Apache-2.0
#include "tools/tool.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <sstream>

#include "tools/command.h"

namespace ckpt {
namespace {

constexpr const char* kDescription =
    "Checkpoints of disks that nbdkit ckpt serves: makes them, goes back to them, checks them";

constexpr const char* kFooter =
    "VOLUME is the path of the primary image, or of its state directory (IMAGE.ckpt).\n"
    "Whether a server runs for it or not, the commands are the same.\n"
    "`ckpt-tool COMMAND --help` says what a command does.\n\n"
    "Exit status: 0 done, 1 failed, nothing changed, 2 wrong use, 3 done but degraded,\n"
    "4 no such volume or checkpoint, 5 busy, 6 newer checkpoints exist, 7 timeout: the\n"
    "outcome may still come, 8 mismatch found, 9 stopped half-way, 10 back-up not reachable,\n"
    "11 fenced or diverged, 12 TLS or authentication.";

void declare(CLI::App& app, Invocation& invocation) {
  app.name("ckpt-tool");
  app.footer(kFooter);
  app.get_formatter()->label("SUBCOMMAND", "COMMAND VOLUME");
  app.require_subcommand(1);
  app.set_version_flag("--version", "ckpt-tool " CKPT_VERSION, "Says the version and exits");
  add_common_options(app, invocation);
  add_status(app, invocation);
  add_checkpoint(app, invocation);
  add_list(app, invocation);
  add_show(app, invocation);
  add_rollback(app, invocation);
  add_restore(app, invocation);
  add_run(app, invocation);
  add_vm(app, invocation);
  add_accept(app, invocation);
  add_verify(app, invocation);
  add_export(app, invocation);
  add_promote(app, invocation);
  add_rejoin(app, invocation);
  add_switch(app, invocation);
  add_standby(app, invocation);
  add_forget(app, invocation);
  add_doctor(app, invocation);
  add_metrics(app, invocation);
  add_report(app, invocation);
  add_hook(app, invocation);
}

// CLI11 names what it could not place; where that should have been a command, say so.
std::string usage_message(const CLI::App& app, const CLI::ParseError& error) {
  const std::vector<std::string> rest = app.remaining();
  const auto word = std::find_if(rest.begin(), rest.end(),
                                 [](const std::string& text) { return !text.starts_with("-"); });
  if (app.get_subcommands().empty() && word != rest.end()) {
    return "there is no command \"" + *word + "\": see `ckpt-tool --help`";
  }
  const auto chosen = app.get_subcommands();
  const std::string help = chosen.empty() ? "" : chosen.front()->get_name() + " ";
  return std::string(error.what()) + ": see `ckpt-tool " + help + "--help`";
}

// Help and version are results; all else is wrong use.
int finish_parse(const CLI::App& app, const CLI::ParseError& error, Console& console) {
  if (error.get_exit_code() == 0) {
    std::ostringstream out;
    std::ostringstream err;
    app.exit(error, out, err);
    console.set({});
    console.print(out.str());
    return kExitDone;
  }
  const Error wrong{ErrorKind::kInvalid, 0, usage_message(app, error)};
  console.error(wrong);
  return exit_code_of(wrong.kind);
}

int act(const Invocation& invocation, Console& console, const VolumeOpener& opener) {
  Context context{console, opener};
  const auto checked = check_said_tls(invocation.volume.tls);
  const Result<int> code = checked ? invocation.act(context, invocation.volume)
                                   : Result<int>(Unexpected(checked.error()));
  if (!code) {
    console.error(code.error());
    return exit_code_of(code.error().kind);
  }
  return *code;
}

// CLI11 takes them off the end.
void parse(CLI::App& app, const std::vector<std::string>& arguments) {
  app.parse(std::vector<std::string>(arguments.rbegin(), arguments.rend()));
}

// With what follows "--" as another program's words; whether the command is one that takes them.
// If not, "--" means what it means to most programs: no options follow.
bool parse_with_rest(Invocation& invocation, const std::vector<std::string>& arguments) {
  const auto dashes = std::ranges::find(arguments, "--");
  if (dashes == arguments.end()) {
    return false;
  }
  CLI::App app(kDescription);
  declare(app, invocation);
  try {
    parse(app, {arguments.begin(), dashes});
  } catch (const CLI::ParseError&) {
    return false;
  }
  invocation.rest.assign(dashes + 1, arguments.end());
  return invocation.takes_rest;
}

int parse_and_act(const std::vector<std::string>& arguments, Console& console,
                  const VolumeOpener& opener) {
  if (Invocation with_rest; parse_with_rest(with_rest, arguments)) {
    console.set(with_rest.verbosity);
    return act(with_rest, console, opener);
  }
  Invocation invocation;
  CLI::App app(kDescription);
  declare(app, invocation);
  // Also for what cannot be parsed.
  console.set({std::find(arguments.begin(), arguments.end(), "--json") != arguments.end()});
  try {
    parse(app, arguments);
  } catch (const CLI::ParseError& error) {
    return finish_parse(app, error, console);
  }
  console.set(invocation.verbosity);
  return act(invocation, console, opener);
}

}  // namespace

int run_tool(const std::vector<std::string>& arguments, const Streams& streams,
             const VolumeOpener& opener) {
  Console console(streams);
  const int code = parse_and_act(arguments, console, opener);
  const Result<> arrived = console.finish();
  if (!arrived) {
    console.error(arrived.error());
    return code == kExitDone ? kExitFailed : code;
  }
  return code;
}

}  // namespace ckpt
