// SPDX-License-Identifier: Apache-2.0
// What the user calls a volume of a backupd, or the backupd itself: ADDRESS/UUID, ADDRESS/NAME or
// ADDRESS.
#pragma once

#include <optional>
#include <string>

#include "common/address.h"
#include "common/volume_name.h"
#include "common/store_dialer.h"

namespace ckpt {

struct BackupName {
  Address address;
  Uuid volume{};       // nil: it is called by its name, or not at all
  std::string name{};  // empty, with no UUID: the backupd itself is meant
};

// Nothing: a path that exists, or no such name. Of unix:PATH all is the address if that is a
// socket, or could only be one.
std::optional<BackupName> parse_backup_name(const std::string& text);

// Asks the backupd for the UUID of the volume that is called so. kNotFound: there is none; kBusy:
// several are, and the message names them.
Result<Uuid> find_named_volume(const RemoteOptions& options, const std::string& name);

}  // namespace ckpt
