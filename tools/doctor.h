// SPDX-License-Identifier: Apache-2.0
// How checks are told.
#pragma once

#include "tools/check.h"
#include "tools/console.h"

namespace ckpt {

// Tells all checks, or when quiet those that failed; with --json as the result. Returns the exit
// code: kExitDegraded when any failed.
int say_checks(Console& console, const std::vector<Check>& checks);

}  // namespace ckpt
