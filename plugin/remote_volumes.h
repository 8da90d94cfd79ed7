// SPDX-License-Identifier: Apache-2.0
// Which volumes a backupd has.
#pragma once

#include <string>
#include <vector>

#include "common/volume_name.h"
#include "common/store_dialer.h"

namespace ckpt {

// Those that this client may know of, in the order of their UUIDs; only those that are called so,
// if a name is given. One that cannot be opened there has size 0. Of the options the address, TLS
// and patience count. kCorrupt: a backupd of before there were names, or
// what it says is no list.
Result<std::vector<NamedVolume>> list_remote_volumes(
    const RemoteOptions& options, const std::string& name,
    const ConnectStream& connect = connect_by_socket);

}  // namespace ckpt
