// SPDX-License-Identifier: Apache-2.0
// The boot of this machine that this process is in.
#pragma once

#include <string>

#include "common/clock.h"

namespace ckpt {

// proc_sys_kernel(5), random/boot_id. Empty: it cannot be read.
std::string this_boot_id();
// When it began, by today's wall clock.
WallTime this_boot_time();

}  // namespace ckpt
