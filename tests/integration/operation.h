// SPDX-License-Identifier: Apache-2.0
// One request of the load, as the oracle remembers it, and the window of time in which a copy of
// the disk was taken. All times come from one counter, so any two of them are ordered.
#pragma once

#include <cstdint>
#include <limits>

namespace ckpt {

using Time = uint64_t;
constexpr Time kNever = std::numeric_limits<Time>::max();

enum class OperationKind { kWrite, kZero, kTrim };

struct Operation {
  uint64_t offset = 0;
  uint64_t length = 0;
  OperationKind kind = OperationKind::kWrite;
  uint64_t seed = 0;
  Time issued = 0;
  Time ended = kNever;    // after this it can have no further effect
  bool certain = false;   // it was answered with success, so all of it did take effect
  bool doubtful = false;  // a rollback ran meanwhile: a success proves nothing

  bool covers(uint64_t at) const { return at >= offset && at - offset < length; }
};

// A copy of the disk was cut at one instant in [begin, end].
struct Window {
  Time begin = 0;
  Time end = kNever;
};

}  // namespace ckpt
