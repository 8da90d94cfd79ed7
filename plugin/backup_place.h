// SPDX-License-Identifier: Apache-2.0
// Where a volume's back-up is, as its record has it: nothing for store/ in the state directory, the
// absolute path of another folder, or the address of a backupd, with " tls=off" after it where that
// was said.
#pragma once

#include <string>

#include "plugin/store_dialer.h"

namespace ckpt {

bool is_remote_place(const std::string& place);
// The address and how far it may reach; the rest of the options is the caller's.
Result<RemoteOptions> parse_remote_place(const std::string& place);
std::string remote_place(const Address& address, bool tls_off);
// Of one that is not remote.
std::string folder_of_place(const std::string& place, const std::string& state_path);
// For people: "embedded:DIR", or an address.
std::string describe_place(const std::string& place, const std::string& state_path);

}  // namespace ckpt
