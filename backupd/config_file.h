// SPDX-License-Identifier: Apache-2.0
// The daemon's configuration file: its options by the names that they have on the command line, and
// who may do what.
#pragma once

#include "backupd/daemon_options.h"

namespace ckpt {

// Sets what the file says, and leaves the rest. kInvalid names the file, the line and what is wrong
// with it.
//
// Format: backupd(8), "CONFIGURATION FILE"
Result<> read_config_file(const std::string& path, DaemonOptions& options);

}  // namespace ckpt
