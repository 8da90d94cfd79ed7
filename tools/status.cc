// SPDX-License-Identifier: Apache-2.0
// ckpt-tool status
#include <fmt/format.h>

#include <thread>

#include "tools/command.h"
#include "tools/format.h"
#include "tools/screen.h"

namespace ckpt {
namespace {

constexpr CommandHelp kStatusHelp{
    "status", "What a volume is doing, and what is wrong",
    "`protected` says whether a rollback or a fail-over is possible and the back-up takes more.\n"
    "`changed` is what a rollback to the last checkpoint would throw away; `unshipped` is what "
    "the\n"
    "back-up does not have yet of it.\n"
    "With --watch on a terminal, a view that fills it; else one result after the other.\n"
    "States: running, stopped (no server runs), rolling-back, fenced (clients are refused until\n"
    "`ckpt-tool accept`), diverged (primary and back-up went different ways), promoted.\n\n"
    "  ckpt-tool status disk.img\n"
    "  ckpt-tool status --watch=5 disk.img\n"
    "  ckpt-tool --json status disk.img"};

struct StatusOptions {
  double watch_seconds = 0;  // 0: once
};

Colour colour_of(const std::string& state) {
  if (state == "running" || state == "connected") {
    return Colour::kGood;
  }
  return state == "diverged" || state == "failed" ? Colour::kBad : Colour::kWarning;
}

std::string describe(const std::optional<CheckpointInfo>& last) {
  return last ? fmt::format("{}{}, {}", last->id.number.value, quoted_name(*last),
                            format_past(last->time, system_clock().wall()))
              : "none yet";
}

// Of a first copy also how far it is: all that is changed was unshipped when it began.
std::string describe_unshipped(const VolumeStatus& status) {
  const std::string left = format_bytes(status.unshipped_bytes);
  const bool is_first_copy = status.store->state == "syncing" && !status.store->confirmed;
  return is_first_copy ? left + " of " + format_bytes(status.changed_bytes) : left;
}

std::string describe(const Console& console, const RelayState& relay) {
  const std::string has = relay.passed ? "has checkpoint " + std::to_string(relay.passed->value)
                                       : "has nothing yet, as far as is known";
  return printable(relay.address) + " " + has +
         (relay.error.empty() ? "" : "; " + console.paint(Colour::kBad, printable(relay.error)));
}

void add_store(LabelledRows& rows, const Console& console, const VolumeStatus& status,
               bool served) {
  if (!status.store) {
    rows.push_back({"back-up", console.paint(Colour::kWarning, "none") + " (backup=none)"});
    return;
  }
  const StoreStatus& store = *status.store;
  rows.push_back({"back-up", printable(store.address) + ", " +
                                 console.paint(colour_of(store.state), printable(store.state))});
  if (!store.error.empty()) {
    rows.push_back({"  error", console.paint(Colour::kBad, printable(store.error))});
  }
  rows.push_back({"  confirmed", store.confirmed ? fmt::format("{} (applied: {})",
                                                               store.confirmed->id.number.value,
                                                               store.applied.value)
                                                 : "none yet"});
  if (const char* const primary = word_of(store.primary); primary != nullptr && !served) {
    rows.push_back({"  primary", primary});
  }
  for (const RelayState& relay : store.relays) {
    rows.push_back({"  relay", describe(console, relay)});
  }
  if (!served) {
    return;
  }
  rows.push_back({"  unshipped", describe_unshipped(status)});
  rows.push_back({"  pending", format_bytes(store.pending_bytes)});
  rows.push_back({"  to apply", format_bytes(store.confirmed_bytes)});
  rows.push_back({"  free", format_bytes(store.free_bytes)});
}

// Only what is set, or went wrong.
void add_interval(LabelledRows& rows, const Console& console, const VolumeStatus& status) {
  if (status.checkpoint_interval.count() > 0) {
    rows.push_back({"interval", format_duration(status.checkpoint_interval)});
  }
  const EventCounts& counts = status.counts;
  if (counts.missed_checkpoints > 0) {
    rows.push_back(
        {"missed", console.paint(Colour::kWarning, fmt::format("{} checkpoints of the interval",
                                                               counts.missed_checkpoints))});
  }
  if (counts.void_checkpoints > 0) {
    rows.push_back({"void", console.paint(Colour::kWarning,
                                          fmt::format("{} checkpoints: see `ckpt-tool report`",
                                                      counts.void_checkpoints))});
  }
}

// Both lines, where they may be two: this one's, and that of the back-up's last checkpoint.
void add_lineage(LabelledRows& rows, const VolumeStatus& status) {
  const auto to_checkpoint = [](const CheckpointId& end) {
    return fmt::format("{} to checkpoint {}", end.timeline.to_string(), end.number.value);
  };
  for (const CheckpointId& end : status.lineage) {
    rows.push_back({&end == &status.lineage.front() ? "lineage" : "", to_checkpoint(end)});
  }
  rows.push_back({"timeline", status.timeline.to_string()});
  const bool has_theirs = status.store && status.store->confirmed;
  const Uuid theirs = has_theirs ? status.store->confirmed->id.timeline : status.timeline;
  if (theirs != status.timeline && !theirs.is_nil()) {
    rows.push_back({"  back-up's", theirs.to_string()});
  }
}

void add_details(LabelledRows& rows, const VolumeStatus& status) {
  rows.push_back({"volume", status.volume.to_string()});
  if (!status.name.empty()) {
    rows.push_back({"name", printable(status.name)});
  }
  rows.push_back({"i/o", printable(status.io)});
  rows.push_back({"preserved", fmt::format("{} blocks", status.preserved_blocks)});
}

// Without a server some things are not known, rather than zero.
LabelledRows rows_of(const Console& console, const VolumeStatus& status, bool served) {
  LabelledRows rows{
      {"image", printable(status.image)},
      {"state", console.paint(colour_of(status.state), printable(status.state)) + " (" +
                    printable(status.role) + ")"},
      {"protected", status.protection ? console.paint(Colour::kGood, "yes")
                                      : console.paint(Colour::kWarning, "no")},
  };
  if (!status.problem.empty()) {
    rows.push_back({"problem", console.paint(Colour::kBad, printable(status.problem))});
  }
  rows.push_back({"size", format_bytes_exact(status.size_bytes)});
  rows.push_back({"epoch", std::to_string(status.epoch.value)});
  rows.push_back({"checkpoint", describe(status.last_checkpoint)});
  if (served) {
    rows.push_back({"changed", format_bytes(status.changed_bytes) + " since"});
    rows.push_back({"connections", std::to_string(status.connections)});
    rows.push_back({"longest stall", format_duration(status.stall_max)});
    add_interval(rows, console, status);
  }
  add_store(rows, console, status, served);
  if (console.verbosity().verbose) {
    add_details(rows, status);
  }
  if (console.verbosity().verbose || status.state == "diverged" || status.state == "promoted") {
    add_lineage(rows, status);
  }
  return rows;
}

// The result for scripts is said; that for people is returned.
Result<std::string> look(Console& console, const OpenedVolume& opened) {
  const VolumeStatus status = opened.volume->status();
  if (status.state.empty()) {
    return fail(ErrorKind::kIo, status.problem);
  }
  console.result(to_json(status));
  return console.verbosity().quiet ? printable(status.state) + "\n"
                                   : format_rows(rows_of(console, status, opened.served));
}

Result<std::string> first_look(Context& context, const VolumeName& name) {
  CKPT_ASSIGN(const OpenedVolume opened, open_named(context, name));
  return look(context.console, opened);
}

// The volume is opened anew each time: a server may start or stop meanwhile.
Result<std::string> look_again(Context& context, const VolumeName& name) {
  CKPT_ASSIGN(const OpenedVolume opened, context.opener(name));
  return look(context.console, opened);
}

// One view after another, in a file or a pipe, until something is wrong.
Result<int> list_views(Context& context, const VolumeName& name, std::chrono::nanoseconds period) {
  for (;;) {
    std::this_thread::sleep_for(period);
    CKPT_ASSIGN(const std::string view, look_again(context, name));
    context.console.print("\n" + view);
  }
}

// What is wrong is shown like all the rest: it may pass.
[[noreturn]] void draw_views(Context& context, const VolumeName& name,
                             std::chrono::nanoseconds period, Result<std::string> view) {
  Screen screen;
  for (;;) {
    screen.show(fmt::format("{}, every {}; Ctrl-C ends\n\n{}",
                            format_local_time(system_clock().wall()), format_duration(period),
                            view ? *view : printable(view.error().message()) + "\n"));
    screen.wait(period);
    view = look_again(context, name);
  }
}

Result<int> status(Context& context, const VolumeName& name, const StatusOptions& options) {
  Console& console = context.console;
  const std::chrono::nanoseconds period(static_cast<int64_t>(options.watch_seconds * 1e9));
  CKPT_ASSIGN(std::string view, first_look(context, name));
  const bool again = options.watch_seconds > 0;
  if (again && console.out_draws() && !console.verbosity().json && !console.verbosity().quiet) {
    draw_views(context, name, period, std::move(view));
  }
  console.print(view);
  return again ? list_views(context, name, period) : Result<int>(kExitDone);
}

}  // namespace

void add_status(CLI::App& app, Invocation& invocation) {
  const auto options = std::make_shared<StatusOptions>();
  Arguments arguments = add_command(app, invocation, kStatusHelp,
                                    [options](Context& context, const VolumeName& name) {
                                      return status(context, name, *options);
                                    });
  arguments.add_optional_seconds("--watch", options->watch_seconds, 2, {0.1, 86400},
                                 "Again every S seconds (2 if it is not said), until interrupted");
}

}  // namespace ckpt
