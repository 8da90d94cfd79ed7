// SPDX-License-Identifier: Apache-2.0
// What systemd and its like hand to a daemon, and want to hear from it.
#pragma once

#include <string>
#include <vector>

#include "common/socket.h"

namespace ckpt {

// Sends a state to whoever started the daemon, if it wants to know (sd_notify(3), NOTIFY_SOCKET).
void tell_supervisor(const std::string& state);

// Listening sockets that the daemon was started with (sd_listen_fds(3)); none is usual. kInvalid:
// one is no stream socket that listens, or is beyond that reach.
Result<std::vector<UniqueFd>> inherited_listeners(Reach reach);

}  // namespace ckpt
