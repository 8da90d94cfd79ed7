// SPDX-License-Identifier: Apache-2.0
// ckpt-tool promote
#include "plugin/promote.h"

#include <fmt/format.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>

#include "tools/command.h"
#include "tools/fence.h"
#include "tools/format.h"
#include "tools/program.h"

namespace ckpt {
namespace {

constexpr CommandHelp kPromoteHelp{
    "promote", "Fail-over: makes the primary of a back-up whose primary is lost",
    "VOLUME is the folder of the back-up: of a volume in backupd's store, or IMAGE.ckpt/store.\n"
    "What is confirmed is applied, what is pending is dropped, and the back-up image is the disk\n"
    "from then on: nothing is copied. The old primary is refused, for good; it stops its clients\n"
    "when it hears of it. Make sure that it is dead, or have --fence do so. Asks on a terminal;\n"
    "without one it needs --yes. A backupd that has the store lets go of it, unless the primary "
    "is\n"
    "connected to it (exit status 5), and refuses that one afterwards.\n\n"
    "Then serve the image, with a back-up of its own, or have --serve do it: the tool becomes the\n"
    "server then. Words after -- are nbdkit's (nbdkit(1)) and the plugin's.\n"
    "  ckpt-tool promote /var/lib/ckpt/UUID --fence 'ipmitool -H node1-bmc power off'\n"
    "  nbdkit ckpt /var/lib/ckpt/UUID/backup.img backup=HOST:PORT\n"
    "  ckpt-tool promote /var/lib/ckpt/UUID --yes --serve -- -U /run/nbd.sock backup=HOST:PORT",
    true, true};

struct PromoteCommandOptions {
  std::string fence;    // for a shell; empty: none
  std::string backupd;  // its address; empty: the one of the folder
  bool force = false;
  bool yes = false;
  bool serve = false;
  std::vector<std::string> server_words;
};

Result<> agree(Console& console, const CheckpointInfo& last, bool yes) {
  const std::string loss = fmt::format(
      "the disk goes on from checkpoint {}{}, {}; what was written since is lost, and its primary "
      "is refused from now on",
      last.id.number.value, quoted_name(last), format_past(last.time, system_clock().wall()));
  return console.agree(loss, "Promote?", yes, "not promoted");
}

// With a word to fill in: where its back-up is to be is for people to say.
std::string serving_line(const PromoteOutcome& outcome) {
  return shell_line({"nbdkit", "ckpt", outcome.image}) + " backup=HOST:PORT";
}

void say(Console& console, const PromoteOutcome& outcome) {
  const CheckpointInfo& checkpoint = outcome.checkpoint;
  console.result(Json{{"checkpoint", checkpoint.id.number.value},
                      {"volume", outcome.volume.to_string()},
                      {"timeline", checkpoint.id.timeline.to_string()},
                      {"image", outcome.image},
                      {"command", serving_line(outcome)},
                      {"was_promoted", outcome.was_promoted}});
  if (console.verbosity().quiet) {
    return;
  }
  console.print(
      fmt::format("{} at checkpoint {}{}; serve it with a back-up of its own, or "
                  "backup=none for now:\n  {}\n",
                  console.paint(Colour::kGood, outcome.was_promoted ? "was promoted" : "promoted"),
                  checkpoint.id.number.value, quoted_name(checkpoint), serving_line(outcome)));
}

// Becomes the server.
Result<int> serve(const std::string& image, const std::vector<std::string>& words) {
  std::vector<std::string> all{"nbdkit", "ckpt", image};
  all.insert(all.end(), words.begin(), words.end());
  std::vector<char*> arguments;
  for (std::string& word : all) {
    arguments.push_back(word.data());
  }
  arguments.push_back(nullptr);
  (void)std::fflush(nullptr);
  ::execvp(arguments[0], arguments.data());
  return fail(ErrorKind::kHalfway, "promoted, but nbdkit cannot be started: " +
                                       std::string(std::strerror(errno)) + ". Serve " + image);
}

Result<> check_words(const PromoteCommandOptions& options) {
  return options.serve || options.server_words.empty()
             ? Result<>()
             : Result<>(fail(ErrorKind::kInvalid, "words after -- are the server's: give --serve"));
}

Result<int> run_promote(Context& context, const VolumeName& name,
                        const PromoteCommandOptions& options) {
  Console& console = context.console;
  CKPT_TRY(check_words(options));
  CKPT_ASSIGN(const VolumePaths paths, find_volume(name));
  if (!paths.is_store || paths.remote) {
    return fail(ErrorKind::kInvalid,
                name.path +
                    ": promote works on the folder of a back-up, on its own machine: "
                    "STORE/UUID of a backupd, or IMAGE.ckpt/store");
  }
  if (!options.yes && !console.interactive()) {
    return fail(ErrorKind::kInvalid,
                "a promotion takes the volume from its primary, and there is no terminal to ask "
                "on: give --yes");
  }
  std::optional<Address> backupd;
  if (!options.backupd.empty()) {
    CKPT_ASSIGN(backupd, parse_address(options.backupd));
  }
  CKPT_ASSIGN(const PromoteOutcome outcome,
              promote({paths.state, options.force, !options.fence.empty(), backupd,
                       [&](const CheckpointInfo& last) -> Result<> {
                         CKPT_TRY(agree(console, last, options.yes));
                         return options.fence.empty() ? Result<>() : fence(options.fence);
                       }}));
  say(console, outcome);
  return options.serve ? serve(outcome.image, options.server_words) : kExitDone;
}

}  // namespace

void add_promote(CLI::App& app, Invocation& invocation) {
  const auto options = std::make_shared<PromoteCommandOptions>();
  Arguments arguments =
      add_command(app, invocation, kPromoteHelp,
                  [options, &invocation](Context& context, const VolumeName& name) {
                    options->server_words = invocation.rest;
                    return run_promote(context, name, *options);
                  });
  arguments.add_filled_text("--fence", "COMMAND", options->fence,
                            "Sees to it that the old primary is dead; run by a shell first. If it "
                            "fails, or takes 2 minutes, nothing is promoted");
  arguments.add_filled_text(
      "--backupd", "ADDRESS", options->backupd,
      "Of the backupd that has the store, as its --listen says it, if not the "
      "socket in its folder: unix:PATH");
  arguments.add_flag("--force", options->force,
                     "Also while the primary is connected, and of an embedded back-up whose image "
                     "is there");
  arguments.add_flag("--serve", options->serve, "Serves the image then");
  arguments.add_flag("--yes", options->yes, "Does not ask");
}

}  // namespace ckpt
