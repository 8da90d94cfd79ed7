// SPDX-License-Identifier: Apache-2.0
// Before a back-up becomes the primary, the old one has to be dead.
#pragma once

#include <string>

#include "common/result.h"

namespace ckpt {

// Runs a command by a shell that sees to it, and waits for its end. An error, kTimeout after two
// minutes: nobody knows whether the old primary still writes.
Result<> fence(const std::string& command);

}  // namespace ckpt
