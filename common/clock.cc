// SPDX-License-Identifier: Apache-2.0
#include "common/clock.h"

#include <sys/random.h>

#include "common/result.h"

namespace ckpt {
namespace {

class SystemClock : public Clock {
 public:
  [[nodiscard]] SteadyTime steady() const override {
    return std::chrono::steady_clock::now().time_since_epoch();
  }
  [[nodiscard]] WallTime wall() const override {
    return std::chrono::system_clock::now().time_since_epoch();
  }
};

class SystemRandom : public Random {
 public:
  uint64_t next() override {
    uint64_t bits = 0;
    CKPT_CHECK(getrandom(&bits, sizeof bits, 0) == sizeof bits);
    return bits;
  }
};

}  // namespace

Clock& system_clock() {
  static SystemClock clock;
  return clock;
}

Random& system_random() {
  static SystemRandom random;
  return random;
}

}  // namespace ckpt
