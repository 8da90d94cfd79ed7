// SPDX-License-Identifier: Apache-2.0
#include "tests/sim/content.h"

#include <cstring>

namespace ckpt::sim {
namespace {

constexpr unsigned kSectorBits = 20;  // of a word; the rest is the version
constexpr size_t kWord = sizeof(uint64_t);

Version read_version(uint64_t sector, const std::byte* bytes) {
  uint64_t word = 0;
  std::memcpy(&word, bytes, kWord);
  // All words are equal if the sector equals itself moved by one.
  if (std::memcmp(bytes, bytes + kWord, kSector - kWord) != 0) {
    return kTorn;
  }
  if (word == 0) {
    return 0;
  }
  return (word & ((uint64_t{1} << kSectorBits) - 1)) == sector ? word >> kSectorBits : kMisplaced;
}

}  // namespace

std::vector<std::byte> make_sectors(uint64_t first, const std::vector<Version>& versions) {
  std::vector<std::byte> bytes(versions.size() * kSector);
  for (size_t i = 0; i < versions.size(); ++i) {
    const uint64_t word = versions[i] == 0 ? 0 : (versions[i] << kSectorBits) | (first + i);
    for (size_t at = i * kSector; at < (i + 1) * kSector; at += kWord) {
      std::memcpy(bytes.data() + at, &word, kWord);
    }
  }
  return bytes;
}

std::vector<Version> read_versions(uint64_t first, ConstByteSpan bytes) {
  std::vector<Version> versions(bytes.size() / kSector);
  for (size_t i = 0; i < versions.size(); ++i) {
    versions[i] = read_version(first + i, bytes.data() + i * kSector);
  }
  return versions;
}

std::string describe_version(Version version) {
  if (version == 0) {
    return "zeroes";
  }
  if (version == kTorn) {
    return "a torn sector";
  }
  return version == kMisplaced ? "a sector of another place" : "version " + std::to_string(version);
}

}  // namespace ckpt::sim
