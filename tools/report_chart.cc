// SPDX-License-Identifier: Apache-2.0
#include "tools/report_chart.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <vector>

#include "tools/format.h"
#include "tools/html.h"

namespace ckpt {
namespace {

// In units of the picture.
constexpr double kWidth = 960;
constexpr double kLeft = 74;  // room for the scale
constexpr double kRight = 12;
constexpr double kTop = 22;  // room for marks
constexpr double kBarMax = 34;
constexpr double kTimesEvery = 150;  // between two times below the chart

// A logarithmic scale: a first copy is a million times what an idle disk changes.
struct Scale {
  double least = 1;
  double most = 2;
  double height = 0;
  // From the bottom; what is less than the least has a height that can still be seen.
  [[nodiscard]] double up(double value) const {
    const double share = value <= least ? 0 : std::log(value / least) / std::log(most / least);
    return std::max(1.5, share * height);
  }
};

Scale scale_to(double least, double step, double largest, double height) {
  double most = least * step;
  while (most < largest) {
    most *= step;
  }
  return {least, most, height};
}

// What all charts have: where the slots are, grid lines, times below.
class Chart {
 public:
  Chart(std::span<const Event> events, const Scale& scale) : events_(events), scale_(scale) {}

  [[nodiscard]] double bottom() const { return kTop + scale_.height; }
  [[nodiscard]] double slot() const {
    return (kWidth - kLeft - kRight) / static_cast<double>(std::max<size_t>(events_.size(), 12));
  }
  [[nodiscard]] double middle_of(size_t i) const {
    return kLeft + slot() * (static_cast<double>(i) + 0.5);
  }
  [[nodiscard]] double y_of(double value) const { return bottom() - scale_.up(value); }

  void add(const std::string& element) { body_ += element + "\n"; }
  void add_grid(double step, const std::function<std::string(double)>& text) {
    for (double value = scale_.least; value <= scale_.most * 1.01; value *= step) {
      const double y = value == scale_.least ? bottom() : y_of(value);
      add(fmt::format(R"(<line class="grid" x1="{:.0f}" x2="{:.0f}" y1="{:.1f}" y2="{:.1f}"/>)",
                      kLeft, kWidth - kRight, y, y));
      add(fmt::format(R"(<text class="scale" x="{:.0f}" y="{:.1f}">{}</text>)", kLeft - 8, y + 4,
                      html(text(value))));
    }
  }
  void add_times() {
    double next = kLeft;
    for (size_t i = 0; i < events_.size(); ++i) {
      const double x = middle_of(i);
      if (x < next || x > kWidth - 60) {
        continue;
      }
      next = x + kTimesEvery;
      add(fmt::format(R"(<line class="tick" x1="{:.1f}" x2="{:.1f}" y1="{:.1f}" y2="{:.1f}"/>)", x,
                      x, bottom(), bottom() + 5));
      add(fmt::format(R"(<text class="time" x="{:.1f}" y="{:.1f}">{}</text>)", x, bottom() + 19,
                      html(format_local_time(events_[i].time).substr(5, 14))));
    }
  }
  [[nodiscard]] std::string take(const std::string& label) const {
    return fmt::format(
        "<svg viewBox=\"0 0 {:.0f} {:.0f}\" role=\"img\" aria-label=\"{}\">\n{}</svg>\n", kWidth,
        bottom() + 26, html(label), body_);
  }

 private:
  std::span<const Event> events_;
  const Scale scale_;
  std::string body_;
};

std::string title_of(const Event& event) {
  const std::string name = event.name.empty() ? "" : " \"" + event.name + "\"";
  return fmt::format("checkpoint {}{}, {}\n{} changed, {} shipped\nconfirmed in {}, stall {}",
                     event.checkpoint, name, format_local_time(event.time),
                     format_bytes(event.changed_bytes), format_bytes(event.shipped_bytes),
                     format_duration(event.confirm), format_duration(event.stall));
}

// Lines of a title are the only control characters that a page keeps.
std::string title_element(const std::string& text) {
  std::string lines;
  for (size_t at = 0; at <= text.size();) {
    const size_t end = std::min(text.find('\n', at), text.size());
    lines += (at == 0 ? "" : "\n") + html(std::string_view(text).substr(at, end - at));
    at = end + 1;
  }
  return "<title>" + lines + "</title>";
}

struct Bar {
  const char* kind;
  double x;
  double width;
  double value;
};

void add_bar(Chart& chart, const Bar& bar, const std::string& title) {
  const double y = chart.y_of(bar.value);
  chart.add(fmt::format(
      R"(<rect class="bar {}" x="{:.2f}" y="{:.2f}" width="{:.2f}" height="{:.2f}">{}</rect>)",
      bar.kind, bar.x - bar.width / 2, y, bar.width, chart.bottom() - y, title));
}

void add_bars(Chart& chart, const Event& event, double x) {
  const double width = std::min(kBarMax, chart.slot() * 0.8);
  const std::string title = title_element(title_of(event));
  add_bar(chart, {"changed", x, width, static_cast<double>(event.changed_bytes)}, title);
  add_bar(chart, {"shipped", x, width / 2, static_cast<double>(event.shipped_bytes)}, title);
}

struct Mark {
  const char* kind;
  std::string sign;
  std::string title;
};

Mark mark_of(const Event& event) {
  const std::string time = format_local_time(event.time);
  if (event.kind == EventKind::kRollback) {
    return {"rollback", "\u21b6",
            fmt::format("rollback to checkpoint {}, {}\n{} restored in {}", event.checkpoint, time,
                        format_bytes(event.restored_bytes), format_duration(event.elapsed))};
  }
  if (event.kind == EventKind::kVoid) {
    const std::string which =
        event.checkpoint == 0 ? "one that had not begun" : std::to_string(event.checkpoint);
    return {"void", "\u2715", fmt::format("void: {}, {}\n{}", which, time, event.text)};
  }
  return {"missed", event.count == 1 ? "\u25b3" : fmt::format("\u25b3{}", event.count),
          fmt::format("missed: {}, {}\n{}", event.count, time, event.text)};
}

void add_mark(Chart& chart, const Event& event, double x) {
  const Mark mark = mark_of(event);
  chart.add(fmt::format(
      R"(<g class="mark {}"><line x1="{:.1f}" x2="{:.1f}" y1="{:.1f}" y2="{:.1f}"/>)"
      R"(<text x="{:.1f}" y="{:.1f}">{}</text>{}</g>)",
      mark.kind, x, x, kTop, chart.bottom(), x, kTop - 6, mark.sign, title_element(mark.title)));
}

// The ends of a scale may be more than what these types hold.
std::string bytes_text(double value) {
  return format_bytes(static_cast<uint64_t>(std::min(value, 1.8e19)));
}

std::string time_text(double microseconds) {
  return format_duration(
      std::chrono::microseconds(static_cast<int64_t>(std::min(microseconds, 9.2e15))));
}

double microseconds_of(std::chrono::nanoseconds time) {
  return std::chrono::duration<double, std::micro>(time).count();
}

void add_dot(Chart& chart, const char* kind, double x, double y) {
  const double radius = std::clamp(chart.slot() * 0.35, 1.8, 4.5);
  chart.add(fmt::format(R"(<circle class="dot {}" cx="{:.2f}" cy="{:.2f}" r="{:.2f}"/>)", kind, x,
                        y, radius));
}

}  // namespace

bool is_charted(const Event& event) {
  return event.kind == EventKind::kCheckpoint || event.kind == EventKind::kVoid ||
         event.kind == EventKind::kMissed || event.kind == EventKind::kRollback;
}

std::string bytes_chart(std::span<const Event> events) {
  double largest = 0;
  for (const Event& event : events) {
    largest =
        std::max(largest, static_cast<double>(std::max(event.changed_bytes, event.shipped_bytes)));
  }
  Chart chart(events, scale_to(256, 64, largest, 210));
  chart.add_grid(64, bytes_text);
  chart.add_times();
  for (size_t i = 0; i < events.size(); ++i) {
    if (events[i].kind == EventKind::kCheckpoint) {
      add_bars(chart, events[i], chart.middle_of(i));
    } else {
      add_mark(chart, events[i], chart.middle_of(i));
    }
  }
  return chart.take("Changed and shipped bytes of each checkpoint");
}

std::string times_chart(std::span<const Event> events) {
  double largest = 0;
  for (const Event& event : events) {
    largest = std::max({largest, microseconds_of(event.confirm), microseconds_of(event.stall)});
  }
  Chart chart(events, scale_to(1, 100, largest, 130));
  chart.add_grid(100, time_text);
  chart.add_times();
  for (size_t i = 0; i < events.size(); ++i) {
    if (events[i].kind == EventKind::kCheckpoint) {
      const double x = chart.middle_of(i);
      chart.add("<g>" + title_element(title_of(events[i])));
      add_dot(chart, "confirm", x, chart.y_of(microseconds_of(events[i].confirm)));
      add_dot(chart, "stall", x, chart.y_of(microseconds_of(events[i].stall)));
      chart.add("</g>");
    }
  }
  return chart.take("Time to confirmation and longest stall of each checkpoint");
}

}  // namespace ckpt
