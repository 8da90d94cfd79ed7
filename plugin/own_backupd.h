// SPDX-License-Identifier: Apache-2.0
// The backupd of this machine that has a store, found by the store's folder.
#pragma once

#include <optional>
#include <string>

#include "common/address.h"
#include "common/block.h"
#include "common/fd.h"

namespace ckpt {

struct OwnBackupd {
  Uuid volume;        // as the store's folder is called
  UniqueFd above;     // the folder above: by it a long path is short, as long as this is open
  Address address;    // of a socket in there, or what was said
  std::string shown;  // the same, for people
};

// Nothing: the folder is not called by a UUID, as those of a backupd are. said: where that backupd
// listens; nothing: at the socket in its folder.
std::optional<OwnBackupd> own_backupd(const std::string& store_path,
                                      const std::optional<Address>& said);

}  // namespace ckpt
