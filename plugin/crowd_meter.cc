// SPDX-License-Identifier: Apache-2.0
#include "plugin/crowd_meter.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cinttypes>
#include <cstdio>

namespace ckpt {
namespace {

constexpr std::chrono::milliseconds kRestMax{50};
// A single step may be lucky, though processors are short.
constexpr uint64_t kLatelyNs = 100'000'000;

}  // namespace

CrowdMeter::CrowdMeter() : fd_(open("/proc/thread-self/schedstat", O_RDONLY | O_CLOEXEC)) {}

bool CrowdMeter::read(uint64_t& ran_ns, uint64_t& waited_ns) {
  std::array<char, 80> text{};
  return fd_ && pread(fd_.get(), text.data(), text.size() - 1, 0) > 0 &&
         std::sscanf(text.data(), "%" SCNu64 " %" SCNu64, &ran_ns, &waited_ns) == 2;
}

void CrowdMeter::look() {
  uint64_t ran_ns = 0;
  uint64_t waited_ns = 0;
  if (!read(ran_ns, waited_ns)) {
    return;
  }
  ran_last_ns_ = ran_ns - ran_ns_;
  const uint64_t waited_last_ns = waited_ns - waited_ns_;
  if (wanted_lately_ns_ > kLatelyNs) {
    wanted_lately_ns_ /= 2;
    waited_lately_ns_ /= 2;
  }
  wanted_lately_ns_ += ran_last_ns_ + waited_last_ns;
  waited_lately_ns_ += waited_last_ns;
  crowded_ = waited_lately_ns_ * 10 > wanted_lately_ns_;
  ran_ns_ = ran_ns;
  waited_ns_ = waited_ns;
}

std::chrono::nanoseconds CrowdMeter::rest(int multiple) const {
  const std::chrono::nanoseconds rest = std::chrono::nanoseconds(ran_last_ns_) * multiple;
  return crowded_ ? std::min<std::chrono::nanoseconds>(rest, kRestMax)
                  : std::chrono::nanoseconds(0);
}

}  // namespace ckpt
