// SPDX-License-Identifier: Apache-2.0
// ckpt-tool as a function: arguments in, exit code out.
#pragma once

#include <string>
#include <vector>

#include "tools/console.h"
#include "tools/open_volume.h"

namespace ckpt {

// arguments: without the program's name. Returns the exit code (design: "The contract outside").
int run_tool(const std::vector<std::string>& arguments, const Streams& streams,
             const VolumeOpener& opener);

}  // namespace ckpt
