// SPDX-License-Identifier: Apache-2.0
// The pace of work that may wait, so that it does not slow down the clients.
#pragma once

#include <algorithm>

#include "common/clock.h"

namespace ckpt {

// How long the kernel lets data be dirty before it begins to write it out (dirty_expire_centisecs).
// A sync competes with the clients for disk and processors, and writes what may be overwritten
// soon; one that waits as long costs least.
inline constexpr std::chrono::seconds kDirtyTime{30};

// A rest that ends early when no client writes: then nobody is disturbed.
//
// Threads: one at a time.
class Pace {
 public:
  // quiet: how long no client must have written.
  explicit Pace(std::chrono::nanoseconds quiet) : quiet_(quiet) {}

  void rest_for(std::chrono::nanoseconds time, SteadyTime now) { rest_until_ = now + time; }
  // Whether the rest is over. since_write: how long ago a client's last write ended.
  [[nodiscard]] bool may_go_on(SteadyTime now, std::chrono::nanoseconds since_write) const {
    return now >= rest_until_ || since_write >= quiet_;
  }
  // How long until may_go_on() is worth asking again; 0: now.
  [[nodiscard]] std::chrono::nanoseconds rest(SteadyTime now) const { return rest(now, quiet_); }
  // The same, where it is asked that often only: whoever looks takes a processor, too.
  [[nodiscard]] std::chrono::nanoseconds rest(SteadyTime now, std::chrono::nanoseconds look) const {
    return std::max<std::chrono::nanoseconds>(std::min(rest_until_ - now, look), {});
  }

 private:
  std::chrono::nanoseconds quiet_;
  SteadyTime rest_until_{};
};

}  // namespace ckpt
