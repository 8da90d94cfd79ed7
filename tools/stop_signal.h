// SPDX-License-Identifier: Apache-2.0
// A signal that asks a command to end, and does not end it: it ends first what it has begun.
#pragma once

namespace ckpt {

// SIGTERM, SIGINT, SIGHUP, and SIGPIPE: whoever read the output is gone.
void listen_for_stop();

// The last that came since; 0: none.
int stop_signal();

}  // namespace ckpt
