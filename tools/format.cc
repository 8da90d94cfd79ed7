// SPDX-License-Identifier: Apache-2.0
#include "tools/format.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <ctime>

namespace ckpt {
namespace {

using std::chrono::duration_cast;
using Seconds = std::chrono::seconds;

constexpr std::array<const char*, 6> kUnits{"KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};

std::string two_units(uint64_t large, const char* large_unit, uint64_t small,
                      const char* small_unit) {
  return small == 0 ? fmt::format("{} {}", large, large_unit)
                    : fmt::format("{} {} {} {}", large, large_unit, small, small_unit);
}

std::string padded(const std::string& text, size_t width, bool right_aligned) {
  const std::string space(width - std::min(width, width_of(text)), ' ');
  return right_aligned ? space + text : text + space;
}

}  // namespace

std::string format_bytes(uint64_t bytes) {
  if (bytes < 1024) {
    return bytes == 1 ? "1 byte" : fmt::format("{} bytes", bytes);
  }
  double value = static_cast<double>(bytes) / 1024;
  size_t unit = 0;
  // 1023.5 and more would be printed as 1024 of its unit.
  while (value >= 1023.5 && unit + 1 < kUnits.size()) {
    value /= 1024;
    ++unit;
  }
  return value < 99.95 ? fmt::format("{:.1f} {}", value, kUnits[unit])
                       : fmt::format("{:.0f} {}", value, kUnits[unit]);
}

std::string format_bytes_exact(uint64_t bytes) {
  return bytes < 1024 ? format_bytes(bytes)
                      : fmt::format("{} ({} bytes)", format_bytes(bytes), bytes);
}

std::string format_duration(std::chrono::nanoseconds time) {
  if (time < std::chrono::milliseconds(1)) {
    return fmt::format("{} us", duration_cast<std::chrono::microseconds>(time).count());
  }
  const double seconds = std::chrono::duration<double>(time).count();
  if (seconds < 0.9995) {
    return fmt::format("{:.1f} ms", seconds * 1000);
  }
  if (seconds < 59.95) {
    return fmt::format("{:.1f} s", seconds);
  }
  const auto whole = static_cast<uint64_t>(std::llround(seconds));
  if (whole < 3600) {
    return two_units(whole / 60, "min", whole % 60, "s");
  }
  if (whole < 86400) {
    return two_units(whole / 3600, "h", whole % 3600 / 60, "min");
  }
  return two_units(whole / 86400, "d", whole % 86400 / 3600, "h");
}

std::string format_local_time(WallTime time) {
  const auto seconds = static_cast<time_t>(duration_cast<Seconds>(time).count());
  std::tm parts{};
  localtime_r(&seconds, &parts);
  std::array<char, 48> text{};
  std::strftime(text.data(), text.size(), "%Y-%m-%d %H:%M:%S %z", &parts);
  return text.data();
}

std::string format_past(WallTime time, WallTime now) {
  const WallTime age = now - time;
  // Clocks can be set back; an age below zero would say nothing.
  if (age < Seconds(1)) {
    return format_local_time(time) + " (just now)";
  }
  const std::string ago = age < std::chrono::minutes(1)
                              ? fmt::format("{} s", duration_cast<Seconds>(age).count())
                              : format_duration(duration_cast<Seconds>(age));
  return fmt::format("{} ({} ago)", format_local_time(time), ago);
}

size_t width_of(std::string_view text) {
  return text.size() -
         static_cast<size_t>(std::count_if(text.begin(), text.end(), is_continuation));
}

std::string format_rows(const LabelledRows& rows) {
  size_t width = 0;
  for (const auto& [label, value] : rows) {
    width = std::max(width, width_of(label));
  }
  std::string text;
  for (const auto& [label, value] : rows) {
    text += padded(label, width, false) + "  " + value + "\n";
  }
  return text;
}

std::string format_table(const std::vector<std::vector<std::string>>& rows,
                         const std::vector<bool>& right_aligned) {
  std::vector<size_t> widths(right_aligned.size(), 0);
  for (const auto& row : rows) {
    for (size_t i = 0; i < row.size() && i < widths.size(); ++i) {
      widths[i] = std::max(widths[i], width_of(row[i]));
    }
  }
  std::string text;
  for (const auto& row : rows) {
    std::string line;
    for (size_t i = 0; i < row.size() && i < widths.size(); ++i) {
      line += (i == 0 ? "" : "  ") + padded(row[i], widths[i], right_aligned[i]);
    }
    line.erase(line.find_last_not_of(' ') + 1);
    text += line + "\n";
  }
  return text;
}

}  // namespace ckpt
