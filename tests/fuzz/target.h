// SPDX-License-Identifier: Apache-2.0
// What reads bytes that somebody else has chosen, by name: each takes any input and comes back.
// What it accepts it can also write, as the same bytes, where a format has one way to say a thing.
#pragma once

#include <algorithm>
#include <vector>

#include "common/bytes.h"
#include "common/result.h"

namespace ckpt::fuzz {

// Of the disk that inputs are about.
inline constexpr uint64_t kDiskBytes = uint64_t{1} << 20U;

struct Target {
  const char* name;  // of its corpus, too
  void (*run)(ConstByteSpan input);
};

std::vector<Target> wire_targets();     // between plugin and backupd
std::vector<Target> file_targets();     // in state directories and stores
std::vector<Target> control_targets();  // control socket, events
std::vector<Target> text_targets();     // parameters, configuration, mounts
std::vector<Target> saved_targets();    // what is saved of processes and machines; QEMU's answers

// All of these.
std::vector<Target> all_targets();
// Nothing: there is none with that name.
const Target* find_target(std::string_view name);

inline std::string text_of(ConstByteSpan input) {
  return {reinterpret_cast<const char*>(input.data()), input.size()};
}

// The bytes with the CRC32C that our headers end with, so that what is behind it is reached.
std::vector<std::byte> sealed(ConstByteSpan header);

// What is accepted is written as it was read.
template <typename Decode, typename Encode>
void expect_same_bytes(ConstByteSpan bytes, const Decode& decode, const Encode& encode) {
  if (const auto value = decode(bytes)) {
    CKPT_CHECK(std::ranges::equal(encode(*value), bytes));
  }
}

// The same for a format that leaves room for what a reader may ignore: what is written says the
// same.
template <typename Bytes, typename Decode, typename Encode>
void expect_same_meaning(const Bytes& bytes, const Decode& decode, const Encode& encode) {
  if (const auto value = decode(bytes)) {
    const auto written = encode(*value);
    const auto again = decode(written);
    CKPT_CHECK(again && encode(*again) == written);
  }
}

}  // namespace ckpt::fuzz
