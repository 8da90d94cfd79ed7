// SPDX-License-Identifier: Apache-2.0
// Unix sockets by path, of any length.
#pragma once

#include <string>

#include "common/fd.h"
#include "common/result.h"

namespace ckpt {

// Connects to a stream socket. kNotFound: there is none at this path, or nobody listens
// there. kBusy: others wait there, for 10 s.
Result<UniqueFd> connect_local(const std::string& path);

// kInvalid: the path is too long to listen at.
Result<UniqueFd> listen_local(const std::string& path);

}  // namespace ckpt
