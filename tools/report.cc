// SPDX-License-Identifier: Apache-2.0
// ckpt-tool report
#include "tools/report.h"

#include <fmt/format.h>

#include "plugin/event_file.h"
#include "tools/command.h"
#include "tools/format.h"

namespace ckpt {
namespace {

constexpr CommandHelp kReportHelp{
    "report", "A page about a volume: is it protected, and what happened to it",
    "Writes one HTML file with charts of the checkpoints, the state of the back-up and the last "
    "events.\n"
    "It needs no network and no scripts. Events are those of the file `events` in the state\n"
    "directory; a server need not run.\n\n"
    "  ckpt-tool report disk.img > report.html\n"
    "  ckpt-tool --json report disk.img"};

// All that fit into the file.
constexpr size_t kEventsMax = 20000;

std::string name_of(const CheckpointInfo& checkpoint, WallTime now) {
  const auto age = std::chrono::floor<std::chrono::seconds>(now - checkpoint.time);
  const std::string when = age.count() < 1    ? "just now"
                           : age.count() < 60 ? fmt::format("{} s ago", age.count())
                                              : format_duration(age) + " ago";
  return fmt::format("checkpoint {}{}, made {}", checkpoint.id.number.value,
                     quoted_name(checkpoint), when);
}

// Why a volume is not protected.
std::string reason_of(const Report& report) {
  const VolumeStatus& status = report.status;
  if (!status.problem.empty()) {
    return status.problem;
  }
  return status.last_checkpoint ? "the back-up takes nothing" : "no checkpoint exists yet";
}

std::string stopped_headline(const Report& report) {
  const VolumeStatus& status = report.status;
  const std::string last = status.last_checkpoint
                               ? "; there is " + name_of(*status.last_checkpoint, report.now)
                               : "; no checkpoint exists";
  const std::string problem = status.problem.empty() ? "" : " (" + status.problem + ")";
  return "Not served: no server runs" + problem + last + ".";
}

Json to_json(const Report& report) {
  Json events = Json::array();
  for (const Event& event : report.events) {
    Json fields = Json::parse(encode_event(event), nullptr, false);
    fields.erase("schema");
    events.push_back(std::move(fields));
  }
  return Json{{"headline", headline_of(report)},
              {"served", report.served},
              {"time", format_time(report.now)},
              {"status", to_json(report.status)},
              {"events", std::move(events)}};
}

Result<int> report(Context& context, const VolumeName& name) {
  if (context.console.out_is_terminal() && !context.console.verbosity().json) {
    return fail(ErrorKind::kInvalid, "the report is a page for a browser: ckpt-tool report " +
                                         name.path + " > report.html");
  }
  CKPT_ASSIGN(const OpenedVolume opened, open_primary(context, name));
  Report report{opened.volume->status(), opened.served, {}, system_clock().wall()};
  if (report.status.state.empty()) {
    return fail(ErrorKind::kIo, report.status.problem);
  }
  CKPT_ASSIGN(report.events, read_events(opened.paths.state, kEventsMax));
  context.console.result(to_json(report));
  context.console.print(report_page(report));
  return kExitDone;
}

}  // namespace

std::string headline_of(const Report& report) {
  const VolumeStatus& status = report.status;
  if (!report.served) {
    return stopped_headline(report);
  }
  const std::string fenced =
      status.state == "fenced" ? "; clients are refused until `ckpt-tool accept`" : "";
  if (!status.protection) {
    return "Not protected: " + reason_of(report) + fenced + ".";
  }
  return fmt::format("Protected: {} changed since {}{}.", format_bytes(status.changed_bytes),
                     name_of(*status.last_checkpoint, report.now), fenced);
}

void add_report(CLI::App& app, Invocation& invocation) {
  add_command(app, invocation, kReportHelp, report);
}

}  // namespace ckpt
