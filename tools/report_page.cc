// SPDX-License-Identifier: Apache-2.0
// The report as one HTML file.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "tools/format.h"
#include "tools/html.h"
#include "tools/report.h"
#include "tools/report_chart.h"

namespace ckpt {
namespace {

constexpr size_t kRowsMax = 200;  // of the table; more nobody reads

// Light and dark as the reader's system has it; on paper light, and nothing torn apart.
constexpr const char* kStyle = R"(
:root{color-scheme:light dark;--page:#f6f7f9;--card:#fff;--ink:#1c2430;--soft:#5d6878;
--line:#dfe3e9;
--changed:#b9cdf0;--shipped:#2f62c4;--good:#1a7f4b;--warn:#a8650a;--bad:#c22f3a;--back:#7b3fc4}
@media (prefers-color-scheme:dark){:root{--page:#12161c;--card:#1b212a;--ink:#e6eaf0;--soft:#98a4b4;
--line:#313a47;--changed:#3c4f74;--shipped:#7fa8f5;--good:#4fc488;--warn:#e6a54a;--bad:#f2737c;
--back:#b78cf2}}
*{box-sizing:border-box}
body{margin:0 auto;padding:28px 20px 48px;max-width:1040px;background:var(--page);color:var(--ink);
font:15px/1.5 system-ui,"Segoe UI","DejaVu Sans",sans-serif}
h1{margin:0;font-size:22px;overflow-wrap:anywhere}h2{margin:0 0 10px;font-size:16px}
.sub{margin:2px 0 18px;color:var(--soft);font-size:13px;overflow-wrap:anywhere}
section{margin:0 0 16px;padding:16px 18px;background:var(--card);border:1px solid var(--line);
border-radius:10px}
.headline{border-left:6px solid var(--bad);font-size:17px;overflow-wrap:anywhere}
.headline.good{border-left-color:var(--good)}.headline.warn{border-left-color:var(--warn)}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(150px,1fr));gap:12px;
margin:0 0 16px}
.tile{padding:12px 14px;background:var(--card);border:1px solid var(--line);border-radius:10px}
.tile b{display:block;font-size:20px;line-height:1.25;font-variant-numeric:tabular-nums}
.tile span{color:var(--soft);font-size:13px}.tile.bad b{color:var(--bad)}
.tile.warn b{color:var(--warn)}
svg{display:block;width:100%;min-width:560px;height:auto}.bytes,.times{overflow-x:auto}
svg text{font:12px system-ui,"Segoe UI","DejaVu Sans",sans-serif;fill:var(--soft)}
.grid{stroke:var(--line)}.tick{stroke:var(--soft)}.scale{text-anchor:end}.time{text-anchor:middle}
.bar.changed{fill:var(--changed)}.bar.shipped{fill:var(--shipped)}
.dot.confirm{fill:var(--shipped)}.dot.stall{fill:var(--warn)}
.mark line{stroke-width:1.5;stroke-dasharray:3 3}.mark text{text-anchor:middle;font-size:14px;
font-weight:600}
.mark.void line{stroke:var(--bad)}.mark.void text{fill:var(--bad)}
.mark.missed line{stroke:var(--warn)}.mark.missed text{fill:var(--warn)}
.mark.rollback line{stroke:var(--back);stroke-dasharray:none;stroke-width:2}
.mark.rollback text{fill:var(--back)}
.legend{display:flex;flex-wrap:wrap;gap:4px 18px;margin:6px 0 0;padding:0;list-style:none;
color:var(--soft);font-size:13px}
.legend i{display:inline-block;min-width:12px;margin-right:6px;font-style:normal;font-weight:600;
text-align:center}
.legend i.box{height:12px;border-radius:2px;vertical-align:-1px}.legend i.round{height:12px;
border-radius:50%;vertical-align:-1px}
table{width:100%;border-collapse:collapse;font-size:14px}
th{text-align:left;font-weight:600;color:var(--soft)}
td,th{padding:5px 10px 5px 0;border-bottom:1px solid var(--line);vertical-align:top;
overflow-wrap:anywhere}
tr:last-child td,tr:last-child th{border-bottom:0}td.when{white-space:nowrap;
font-variant-numeric:tabular-nums;color:var(--soft)}
td.what{white-space:nowrap;font-weight:600}
.e-checkpoint{color:var(--shipped)}.e-void,.e-bad{color:var(--bad)}.e-missed{color:var(--warn)}
.e-rollback{color:var(--back)}
.facts th{width:190px;font-weight:400}.none{margin:0;color:var(--soft)}
@media (max-width:600px){.facts th{width:110px}td.when,td.what{white-space:normal}}
@media print{:root{color-scheme:light;--page:#fff;--card:#fff;--ink:#000;--soft:#444;--line:#ccc;
--changed:#b9cdf0;--shipped:#2f62c4;
--good:#1a7f4b;--warn:#a8650a;--bad:#c22f3a;--back:#7b3fc4}
body{padding:0;max-width:none;font-size:12px}section,.tile{break-inside:avoid;border-radius:0}
.events{break-inside:auto}
tr{break-inside:avoid}*{print-color-adjust:exact;-webkit-print-color-adjust:exact}}
)";

std::string time_element(WallTime time) {
  return fmt::format("<time datetime=\"{}\">{}</time>", html(format_time(time)),
                     html(format_local_time(time)));
}

std::string named(uint64_t checkpoint, const std::string& name) {
  return name.empty() ? std::to_string(checkpoint)
                      : fmt::format("{} “{}”", checkpoint, foreign_html(name));
}

// One number of the summary. kind: "", "warn" or "bad".
struct Tile {
  const char* kind;
  std::string number;
  const char* label;
};

std::string tiles_of(const Report& report) {
  const VolumeStatus& status = report.status;
  std::vector<Tile> tiles;
  if (status.last_checkpoint) {
    tiles.push_back(
        {"", std::to_string(status.last_checkpoint->id.number.value), "last checkpoint"});
  }
  if (report.served) {
    const EventCounts& counts = status.counts;
    tiles.push_back({"", format_bytes(status.changed_bytes), "changed since"});
    tiles.push_back({"", std::to_string(counts.checkpoints), "made since the start"});
    tiles.push_back({counts.missed_checkpoints > 0 ? "warn" : "",
                     std::to_string(counts.missed_checkpoints), "missed"});
    tiles.push_back({counts.void_checkpoints > 0 ? "bad" : "",
                     std::to_string(counts.void_checkpoints), "void"});
    tiles.push_back({"", format_duration(status.stall_max), "longest stall"});
  }
  std::string text;
  for (const Tile& tile : tiles) {
    text += fmt::format("<div class=\"tile {}\"><b>{}</b><span>{}</span></div>\n", tile.kind,
                        html(tile.number), tile.label);
  }
  return text.empty() ? "" : "<div class=\"tiles\">\n" + text + "</div>\n";
}

std::string what_of(const Event& event) {
  switch (event.kind) {
    case EventKind::kStart: return "server started";
    case EventKind::kStop: return "server stopped";
    case EventKind::kCheckpoint: return "checkpoint";
    case EventKind::kVoid: return "void";
    case EventKind::kMissed: return "missed";
    case EventKind::kRollback: return "rollback";
    case EventKind::kAccept: return "clients accepted";
    case EventKind::kStore: return "back-up";
  }
  return "";
}

std::string details_of(const Event& event) {
  switch (event.kind) {
    case EventKind::kCheckpoint:
      return fmt::format("{}: {} changed, {} shipped, confirmed in {}, stall {}",
                         named(event.checkpoint, event.name), format_bytes(event.changed_bytes),
                         format_bytes(event.shipped_bytes), format_duration(event.confirm),
                         format_duration(event.stall));
    case EventKind::kVoid:
      return (event.checkpoint == 0 ? "" : std::to_string(event.checkpoint) + ": ") +
             foreign_html(event.text);
    case EventKind::kMissed: return fmt::format("{}: {}", event.count, foreign_html(event.text));
    case EventKind::kRollback:
      return fmt::format("to {}: {} restored in {}{}", event.checkpoint,
                         format_bytes(event.restored_bytes), format_duration(event.elapsed),
                         event.fenced ? ", clients fenced" : "");
    case EventKind::kStore:
      return foreign_html(event.state) +
             (event.text.empty() ? "" : ": " + foreign_html(event.text));
    default: return "";
  }
}

const char* class_of(const Event& event) {
  switch (event.kind) {
    case EventKind::kCheckpoint: return "e-checkpoint";
    case EventKind::kVoid: return "e-void";
    case EventKind::kMissed: return "e-missed";
    case EventKind::kRollback: return "e-rollback";
    case EventKind::kStore: return event.state == "failed" ? "e-bad" : "e-other";
    default: return "e-other";
  }
}

std::string events_table(const Report& report) {
  if (report.events.empty()) {
    return "<p class=\"none\">Nothing is on record yet.</p>\n";
  }
  std::string rows;
  const size_t count = std::min(report.events.size(), kRowsMax);
  for (size_t i = 0; i < count; ++i) {
    const Event& event = report.events[report.events.size() - 1 - i];
    rows +=
        fmt::format("<tr><td class=\"when\">{}</td><td class=\"what {}\">{}</td><td>{}</td></tr>\n",
                    time_element(event.time), class_of(event), what_of(event), details_of(event));
  }
  return "<table>\n<tr><th>when</th><th>what</th><th>details</th></tr>\n" + rows + "</table>\n";
}

constexpr const char* kLegend = R"html(<ul class="legend">
<li><i class="box" style="background:var(--changed)"></i>changed</li>
<li><i class="box" style="background:var(--shipped)"></i>shipped, compressed</li>
<li><i style="color:var(--bad)">✕</i>void: does not exist</li>
<li><i style="color:var(--warn)">△</i>missed: the one before was still being made</li>
<li><i style="color:var(--back)">↶</i>rollback</li>
<li>The scale is logarithmic.</li>
</ul>
)html";
constexpr const char* kTimesLegend = R"html(<ul class="legend">
<li><i class="round" style="background:var(--shipped)"></i>from the cut to the confirmation</li>
<li><i class="round" style="background:var(--warn)"></i>longest that a write waited</li>
</ul>
)html";

std::string charts_of(const Report& report) {
  std::vector<Event> charted;
  std::ranges::copy_if(report.events, std::back_inserter(charted), is_charted);
  const size_t all = charted.size();
  if (all == 0) {
    return "<section><h2>Checkpoints</h2><p class=\"none\">None is on record yet.</p></section>\n";
  }
  if (all > kSlotsMax) {
    charted.erase(charted.begin(), charted.end() - kSlotsMax);
  }
  const std::string part =
      all > kSlotsMax ? fmt::format(" (the last {} of {})", kSlotsMax, all) : "";
  return fmt::format(
      "<section class=\"bytes\"><h2>Checkpoints in their order{}</h2>\n{}{}</section>\n"
      "<section class=\"times\"><h2>How long they took</h2>\n{}{}</section>\n",
      part, bytes_chart(charted), kLegend, times_chart(charted), kTimesLegend);
}

using Facts = std::vector<std::pair<const char*, std::string>>;  // values are HTML

std::string facts_table(const Facts& facts) {
  std::string rows;
  for (const auto& [name, value] : facts) {
    rows += fmt::format("<tr><th>{}</th><td>{}</td></tr>\n", name, value);
  }
  return "<table class=\"facts\">\n" + rows + "</table>\n";
}

std::string store_facts(const Report& report) {
  if (!report.status.store) {
    return "<p class=\"none\">There is no back-up (backup=none): no checkpoint can be made.</p>\n";
  }
  const StoreStatus& store = *report.status.store;
  Facts facts{{"where", foreign_html(store.address)}, {"state", foreign_html(store.state)}};
  if (!store.error.empty()) {
    facts.push_back({"error", "<span class=\"e-bad\">" + foreign_html(store.error) + "</span>"});
  }
  facts.push_back(
      {"confirmed", store.confirmed
                        ? "checkpoint " + std::to_string(store.confirmed->id.number.value)
                        : "none yet"});
  facts.push_back({"applied to its image", "checkpoint " + std::to_string(store.applied.value)});
  if (report.served) {
    facts.push_back({"not shipped yet", format_bytes(report.status.unshipped_bytes)});
    facts.push_back({"pending", format_bytes(store.pending_bytes)});
    facts.push_back({"confirmed, to apply", format_bytes(store.confirmed_bytes)});
    facts.push_back({"free space", format_bytes(store.free_bytes)});
  }
  return facts_table(facts);
}

std::string volume_facts(const Report& report) {
  const VolumeStatus& status = report.status;
  Facts facts{{"state", foreign_html(status.state) + " (" + foreign_html(status.role) + ")"},
              {"size", format_bytes_exact(status.size_bytes)}};
  if (status.last_checkpoint) {
    const CheckpointInfo& last = *status.last_checkpoint;
    facts.push_back({"last checkpoint",
                     named(last.id.number.value, last.name) + ", " + time_element(last.time)});
  }
  if (status.checkpoint_interval.count() > 0) {
    facts.push_back({"interval", format_duration(status.checkpoint_interval)});
  }
  if (report.served) {
    facts.push_back({"connections", std::to_string(status.connections)});
    facts.push_back({"preserved blocks", std::to_string(status.preserved_blocks)});
  }
  facts.push_back({"input and output", foreign_html(status.io)});
  facts.push_back({"volume", status.volume.to_string()});
  facts.push_back({"timeline", status.timeline.to_string()});
  return facts_table(facts);
}

const char* headline_class(const Report& report) {
  return report.status.protection ? "good" : report.served ? "bad" : "warn";
}

std::string image_name(const std::string& path) {
  return path.substr(path.rfind('/') == std::string::npos ? 0 : path.rfind('/') + 1);
}

}  // namespace

std::string report_page(const Report& report) {
  const std::string& image = report.status.image;
  // Nothing may be loaded from anywhere, whatever a name in it holds.
  std::string page =
      "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
      "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src "
      "'unsafe-inline'\">\n"
      "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n";
  page += fmt::format("<title>{} – ckpt</title>\n<style>{}</style>\n</head>\n<body>\n",
                      html(image_name(image)), kStyle);
  page +=
      fmt::format("<h1>{}</h1>\n<p class=\"sub\">{} · {}</p>\n", foreign_html(image_name(image)),
                  foreign_html(image), time_element(report.now));
  page += fmt::format("<section class=\"headline {}\">{}</section>\n", headline_class(report),
                      foreign_html(headline_of(report)));
  page += tiles_of(report) + charts_of(report);
  page += "<section><h2>Back-up</h2>\n" + store_facts(report) + "</section>\n";
  page +=
      "<section class=\"events\"><h2>What happened</h2>\n" + events_table(report) + "</section>\n";
  page += "<section><h2>Volume</h2>\n" + volume_facts(report) + "</section>\n";
  return page + "</body>\n</html>\n";
}

}  // namespace ckpt
