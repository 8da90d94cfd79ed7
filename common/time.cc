// SPDX-License-Identifier: Apache-2.0
#include <array>
#include <cstdio>
#include <ctime>

#include "common/clock.h"

namespace ckpt {

Uuid Random::uuid() {
  Uuid uuid;
  for (size_t half = 0; half < 2; ++half) {
    const uint64_t bits = next();
    for (size_t i = 0; i < 8; ++i) {
      uuid.bytes[half * 8 + i] = static_cast<uint8_t>(bits >> (8 * i));
    }
  }
  uuid.bytes[6] = static_cast<uint8_t>((uuid.bytes[6] & 0x0fU) | 0x40U);
  uuid.bytes[8] = static_cast<uint8_t>((uuid.bytes[8] & 0x3fU) | 0x80U);
  return uuid;
}

std::string format_time(WallTime time) {
  const auto whole = std::chrono::floor<std::chrono::seconds>(time);
  const auto seconds = static_cast<time_t>(whole.count());
  const auto milliseconds = std::chrono::floor<std::chrono::milliseconds>(time - whole).count();
  std::tm parts{};
  gmtime_r(&seconds, &parts);
  std::array<char, 32> date{};
  std::strftime(date.data(), date.size(), "%Y-%m-%dT%H:%M:%S", &parts);
  std::array<char, 48> text{};
  std::snprintf(text.data(), text.size(), "%s.%03dZ", date.data(),
                static_cast<int>(milliseconds));
  return text.data();
}

}  // namespace ckpt
