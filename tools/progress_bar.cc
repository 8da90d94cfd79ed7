// SPDX-License-Identifier: Apache-2.0
#include "tools/progress_bar.h"

#include <fmt/format.h>

#include <algorithm>

#include "tools/format.h"

namespace ckpt {
namespace {

// Five times a second: smooth enough, and nothing beside the work itself.
constexpr std::chrono::milliseconds kInterval{200};
// Before that, a rate is noise.
constexpr std::chrono::milliseconds kRateAfter{500};
constexpr size_t kBarMost = 40;
constexpr size_t kBarLeast = 10;

std::string rate_and_left(const ProgressPoint& point, uint64_t done_bytes, uint64_t total_bytes) {
  if (point.elapsed < kRateAfter || done_bytes == 0) {
    return "";
  }
  const double seconds = std::chrono::duration<double>(point.elapsed).count();
  const double rate = static_cast<double>(done_bytes) / seconds;
  const double left = static_cast<double>(total_bytes - done_bytes) / rate;
  // Beyond a year no unit helps, and nanoseconds overflow.
  if (rate < 1 || left > 365.0 * 86400) {
    return "";
  }
  return fmt::format("  {}/s  {} left", format_bytes(static_cast<uint64_t>(rate)),
                     format_duration(std::chrono::seconds(static_cast<int64_t>(left + 0.999))));
}

std::string bar_of(double share, size_t width) {
  const auto filled = static_cast<size_t>(share * static_cast<double>(width));
  return fmt::format("[{:#<{}}{:.<{}}]", "", filled, "", width - filled);
}

}  // namespace

std::string format_progress(const ProgressPoint& point, size_t columns) {
  const uint64_t done_bytes = std::min(point.done_bytes, point.total_bytes);
  const double share = point.total_bytes == 0 ? 1.0
                                              : static_cast<double>(done_bytes) /
                                                    static_cast<double>(point.total_bytes);
  const std::string front = fmt::format("{} {:3} % ", point.act, static_cast<int>(share * 100));
  const std::string back =
      fmt::format(" {} of {}{}", format_bytes(done_bytes), format_bytes(point.total_bytes),
                  rate_and_left(point, done_bytes, point.total_bytes));
  // Two for the brackets, one so that the cursor does not wrap.
  const size_t used = front.size() + back.size() + 3;
  const size_t room = columns > used ? std::min(columns - used, kBarMost) : 0;
  return (front + (room < kBarLeast ? "" : bar_of(share, room)) + back).substr(0, columns);
}

ProgressBar::ProgressBar(Console& console, std::string act, const Clock& clock)
    : console_(console), act_(std::move(act)), clock_(clock), started_(clock.steady()) {}

ProgressBar::~ProgressBar() {
  if (drawn_) {
    console_.draw("");
  }
}

Progress ProgressBar::progress() {
  return [this](uint64_t done_bytes, uint64_t total_bytes) {
    update(done_bytes, total_bytes);
    return true;
  };
}

void ProgressBar::update(uint64_t done_bytes, uint64_t total_bytes) {
  const SteadyTime now = clock_.steady();
  if (!console_.draws() || (drawn_ && now < next_)) {
    return;
  }
  next_ = now + kInterval;
  drawn_ = true;
  console_.draw(
      format_progress({act_, done_bytes, total_bytes, now - started_}, console_.columns()));
}

}  // namespace ckpt
