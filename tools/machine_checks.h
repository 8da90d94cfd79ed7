// SPDX-License-Identifier: Apache-2.0
// What of a machine would not work with ckpt, why, and what to do.
#pragma once

#include "tools/check.h"
#include "tools/machine_facts.h"

namespace ckpt {

// The oldest nbdkit that runs the plugin.
inline constexpr int kNbdkitMajor = 1;
inline constexpr int kNbdkitMinor = 32;

// The oldest QEMU whose memory can be saved and loaded.
inline constexpr int kQemuMajor = 6;

// Judges facts alone: the same facts give the same checks, always all of them.
std::vector<Check> check_machine(const MachineFacts& facts);

}  // namespace ckpt
