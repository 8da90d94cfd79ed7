// SPDX-License-Identifier: Apache-2.0
// What the simulation writes: each 512-byte sector says which version it is and where it belongs, in each
// of its 64 words, so that a torn, a stale and a misdirected one are told apart.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "common/bytes.h"

namespace ckpt::sim {

inline constexpr uint64_t kSector = 512;
// A request's number; 0: zeroes.
using Version = uint64_t;
inline constexpr Version kTorn = ~Version{0};       // not all words are of one version
inline constexpr Version kMisplaced = kTorn - 1;  // it belongs elsewhere

// Half-open.
struct SectorRange {
  uint64_t first = 0;
  uint64_t end = 0;
  [[nodiscard]] bool contains(uint64_t sector) const { return first <= sector && sector < end; }
  [[nodiscard]] uint64_t bytes() const { return (end - first) * kSector; }
};

// The content of sectors from the first on, in these versions.
std::vector<std::byte> make_sectors(uint64_t first, const std::vector<Version>& versions);
// The versions of sectors from the first on.
std::vector<Version> read_versions(uint64_t first, ConstByteSpan bytes);
// "version 17", "zeroes", "a torn sector".
std::string describe_version(Version version);

}  // namespace ckpt::sim
