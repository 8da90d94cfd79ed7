// SPDX-License-Identifier: Apache-2.0
// Where this process takes connections.
#pragma once

#include <string>
#include <vector>

namespace ckpt {

// The NBD URIs (NBD uri.md) of the sockets that it listens at: of nbdkit's, as long as it has no
// others. One that listens at every address is said to listen at localhost; whether with TLS is not
// known, and not said.
//
// Threads: any.
std::vector<std::string> listening_uris();

// Unix sockets: of a path.
std::string uri_of_path(const std::string& path);

}  // namespace ckpt
