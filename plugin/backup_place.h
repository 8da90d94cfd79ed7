// SPDX-License-Identifier: Apache-2.0
// Where a volume's back-up is, as its record has it: nothing for store/ in the state directory, the
// absolute path of another folder, or the address of a backupd, and after it, with a space each,
// what was said of TLS: "tls=off", or "tls-verify-peer=off" and one of "tls-certificates=DIR" and
// "tls-psk=FILE", whose absolute path goes on to the end.
#pragma once

#include <string>

#include "common/store_dialer.h"

namespace ckpt {

bool is_remote_place(const std::string& place);
// The address and TLS; the rest of the options is the caller's.
Result<RemoteOptions> parse_remote_place(const std::string& place);
std::string remote_place(const Address& address, const TlsOptions& tls);
// The place that a start or a tool means which names this one, and says so of TLS: what it leaves
// out about the same address is as it was recorded. kInvalid: TLS to a Unix socket.
Result<RemoteOptions> choose_remote_place(const std::string& named, const TlsOptions& said,
                                          const std::string& recorded);
// Of one that is not remote.
std::string folder_of_place(const std::string& place, const std::string& state_path);
// For people: "embedded:DIR", or an address.
std::string describe_place(const std::string& place, const std::string& state_path);

}  // namespace ckpt
