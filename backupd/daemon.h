// SPDX-License-Identifier: Apache-2.0
// The daemon but for its main(): from its options until it is told to stop.
#pragma once

#include <functional>

#include "backupd/daemon_options.h"

namespace ckpt {

// Reads the options anew; their TLS and access list take effect.
using Reparse = std::function<Result<DaemonOptions>()>;

// Opens what is on the shelf, listens, goes into the background, serves until SIGTERM or SIGINT,
// and then ends what is under way. Before it returns in the foreground process, or leaves it, one
// line for each volume was said. On SIGHUP it reads its options anew. With check_only it looks at
// what the options name, and serves nothing.
//
// Failure: nothing was served; kBusy: the folder or an address is in use.
Result<> run_daemon(const DaemonOptions& options, const Reparse& reparse);

}  // namespace ckpt
