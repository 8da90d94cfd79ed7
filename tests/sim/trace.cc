// SPDX-License-Identifier: Apache-2.0
#include "tests/sim/trace.h"

#include <algorithm>
#include <array>
#include <cstdio>

namespace ckpt::sim {
namespace {

void append_line(std::string& text, const Event& event) {
  std::array<char, 256> line{};
  std::snprintf(line.data(), line.size(), "%8llu %10.3f ms  %-16s %-16s %-28s %llu %llu\n",
                static_cast<unsigned long long>(event.step),
                static_cast<double>(event.time.count()) / 1e6, event.fiber, event.label,
                event.object, static_cast<unsigned long long>(event.a),
                static_cast<unsigned long long>(event.b));
  text += line.data();
}

}  // namespace

std::string Trace::last_events() const {
  std::string text;
  const uint64_t kept = std::min<uint64_t>(count_, ring_.size());
  for (uint64_t i = count_ - kept; i < count_; ++i) {
    append_line(text, ring_[i % ring_.size()]);
  }
  return text;
}

}  // namespace ckpt::sim
