// SPDX-License-Identifier: Apache-2.0
#include "tools/primary_watch.h"

#include <utility>

namespace ckpt {
namespace {

// Far longer than a look takes: this process, or its machine, stood still meanwhile.
constexpr std::chrono::seconds kGap{10};

}  // namespace

bool PrimaryWatch::is_due(std::optional<PrimaryPresence> seen, SteadyTime now) {
  const bool stood_still = now - std::exchange(looked_at_, now) > kGap;
  if (seen != PrimaryPresence::kAway) {
    away_since_.reset();
    return false;
  }
  if (!away_since_ || stood_still) {
    away_since_ = now;
  }
  return now - *away_since_ >= after_;
}

}  // namespace ckpt
