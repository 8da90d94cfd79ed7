// SPDX-License-Identifier: Apache-2.0
// The daemon but for its main(): from its options until it is told to stop.
#pragma once

#include "backupd/daemon_options.h"

namespace ckpt {

// Opens what is on the shelf, listens, goes into the background, serves until SIGTERM or SIGINT,
// and then ends what is under way. Before it returns in the foreground process, or leaves it, one
// line for each volume was said.
//
// Failure: nothing was served; kBusy: the folder or an address is in use.
Result<> run_daemon(const DaemonOptions& options);

}  // namespace ckpt
