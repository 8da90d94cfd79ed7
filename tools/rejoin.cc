// SPDX-License-Identifier: Apache-2.0
// ckpt-tool rejoin
#include "plugin/rejoin.h"

#include <fmt/format.h>

#include <filesystem>

#include "plugin/control_socket.h"
#include "tools/command.h"
#include "tools/format.h"
#include "tools/rejoin_shelf.h"

namespace ckpt {
namespace {

constexpr CommandHelp kRejoinHelp{
    "rejoin", "After a fail-over: the old primary's image becomes the new primary's back-up",
    "VOLUME is the old primary, whose back-up was promoted. Its image moves into the folder of "
    "this\n"
    "machine's backupd (--store), as STORE/UUID/backup.img, with a map of what differs from the "
    "last\n"
    "checkpoint; its state directory goes. When the new primary reaches that backupd (backup=), "
    "it\n"
    "ships those blocks and what it has changed itself, and nothing else. What was written here "
    "after\n"
    "the last checkpoint is overwritten then. The image of a back-up that was promoted itself "
    "goes\n"
    "back to its own folder, without --store. Asks on a terminal; without one it needs --yes.\n\n"
    "  ckpt-tool rejoin disk.img --store /var/lib/ckpt"};

struct RejoinCommandOptions {
  std::string store;  // empty: the image is in its folder already
  bool discard = false;
  bool force = false;
  bool yes = false;
};

// IMAGE is SHELF/UUID/backup.img.
std::string shelf_of(const std::string& image) {
  return std::filesystem::path(image).parent_path().parent_path().string();
}

std::string described(const RejoinPlan& plan) {
  return plan.base
             ? fmt::format(
                   "{} of the image differ, or may, from checkpoint {}{}, {}, and will "
                   "be overwritten",
                   format_bytes(plan.stale_bytes), plan.base->id.number.value,
                   quoted_name(*plan.base), format_past(plan.base->time, system_clock().wall()))
             : "all of the image will be compared with the new primary's, and overwritten "
               "where it differs";
}

Result<> agree(Console& console, const std::string& image, const RejoinPlan& plan, bool yes) {
  const std::string loss =
      printable(image) + " becomes the back-up of the new primary: " + described(plan);
  return console.agree(loss, "Rejoin?", yes, "not rejoined");
}

void say(Console& console, const RejoinOutcome& outcome) {
  Json result{{"volume", outcome.volume.to_string()},
              {"store", outcome.store_path},
              {"checkpoint", nullptr},
              {"stale_bytes", outcome.plan.stale_bytes},
              {"was_rejoined", outcome.was_rejoined}};
  if (outcome.plan.base) {
    result["checkpoint"] = outcome.plan.base->id.number.value;
  }
  console.result(result);
  if (!console.verbosity().quiet) {
    console.print(fmt::format(
        "{}: {} is a back-up; start backupd, and serve the new primary with it (backup=)\n",
        console.paint(Colour::kGood, outcome.was_rejoined ? "was rejoined" : "rejoined"),
        printable(outcome.store_path)));
  }
}

// Of a store whose image has rejoined already.
Result<int> give_up(Console& console, const VolumePaths& paths,
                    const RejoinCommandOptions& options) {
  if (paths.remote || !options.discard) {
    return fail(ErrorKind::kInvalid,
                paths.state +
                    " is a back-up: rejoin makes one of an old primary, whose image you give; with "
                    "--discard it has all of a rejoined one compared, on its own machine");
  }
  CKPT_TRY(discard_bases(paths.state));
  console.result(Json{{"store", paths.state}, {"discarded", true}});
  if (!console.verbosity().quiet) {
    console.print("all of " + printable(paths.state) + " will be compared\n");
  }
  return kExitDone;
}

Result<int> run_rejoin(Context& context, const VolumeName& name,
                       const RejoinCommandOptions& options) {
  Console& console = context.console;
  CKPT_ASSIGN(const VolumePaths paths, find_volume(name));
  if (paths.is_store) {
    return give_up(console, paths, options);
  }
  if (ControlConnection::connect(paths.state)) {
    return fail(ErrorKind::kBusy, paths.state + ": a server runs for this volume: stop it first");
  }
  if (!options.yes && !console.interactive()) {
    return fail(ErrorKind::kInvalid,
                "what was written here after the last checkpoint is given up, and there is no "
                "terminal to ask on: give --yes");
  }
  CKPT_ASSIGN(const std::string shelf, choose_shelf(paths, options.store));
  CKPT_ASSIGN(const RejoinOutcome outcome,
              rejoin({paths.image, paths.state, shelf, options.discard, options.force, name.backup,
                      name.tls, [&](const RejoinPlan& plan) {
                        return agree(console, paths.image, plan, options.yes);
                      }}));
  say(console, outcome);
  return kExitDone;
}

}  // namespace

Result<std::string> choose_shelf(const VolumePaths& paths, const std::string& store) {
  std::error_code ignored;
  if (!store.empty()) {
    return std::filesystem::absolute(store, ignored).lexically_normal().string();
  }
  const std::filesystem::path image(paths.image);
  return image.filename() == "backup.img"
             ? Result<std::string>(shelf_of(paths.image))
             : fail(ErrorKind::kInvalid,
                    "say where this machine's backupd keeps its volumes: --store DIR");
}

void add_rejoin(CLI::App& app, Invocation& invocation) {
  const auto options = std::make_shared<RejoinCommandOptions>();
  Arguments arguments = add_command(app, invocation, kRejoinHelp,
                                    [options](Context& context, const VolumeName& name) {
                                      return run_rejoin(context, name, *options);
                                    });
  arguments.add_filled_text("--store", "DIR", options->store,
                            "The folder that this machine's backupd has as --store, on the image's "
                            "file system");
  arguments.add_flag("--discard", options->discard,
                     "Gives up checkpoints that the new primary does not have: all of the disk is "
                     "compared");
  arguments.add_flag(
      "--force", options->force,
      "Also where the back-up is not reached, and nobody can say that it was promoted");
  arguments.add_flag("--yes", options->yes, "Does not ask");
}

}  // namespace ckpt
