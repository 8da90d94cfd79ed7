// SPDX-License-Identifier: Apache-2.0
// Tells a primary that is dead from one that is away for a while.
#pragma once

#include <optional>

#include "common/clock.h"
#include "common/store_link.h"

namespace ckpt {

// Threads: one.
class PrimaryWatch {
 public:
  explicit PrimaryWatch(std::chrono::nanoseconds after) : after_(after) {}

  // What is seen of it now; nothing: its backupd cannot be asked. True: it was seen away, and never
  // otherwise, for as long as that. What lies between two looks that are far apart was not seen.
  bool is_due(std::optional<PrimaryPresence> seen, SteadyTime now);
  // Not before it was away for as long again.
  void restart() { away_since_.reset(); }

 private:
  const std::chrono::nanoseconds after_;
  std::optional<SteadyTime> away_since_;
  SteadyTime looked_at_{};
};

}  // namespace ckpt
