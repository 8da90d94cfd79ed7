// SPDX-License-Identifier: Apache-2.0
// Sockets between a primary and its back-up: connected, or listening.
#pragma once

#include <chrono>
#include <vector>

#include "common/address.h"
#include "common/fd.h"

namespace ckpt {

// Whether somebody beyond this machine may be at the other end.
enum class Reach {
  kMachine,  // Unix sockets and loopback addresses only
  kAnywhere,
};

// Whether this address is within that reach, as far as that can be told now: a host that has no
// address yet is. kInvalid: it is not.
Result<> check_address(const Address& address, Reach reach);

// Connects, and waits at most so long for it at each address that the host has (name resolution not
// counted, see getaddrinfo(3)).
// kUnreachable: nobody answers; kInvalid: beyond what the reach allows, or a Unix socket that
// belongs to another user, who is not root.
Result<UniqueFd> connect_socket(const Address& address, Reach reach,
                                std::chrono::milliseconds patience);

// Listens at every address that a host has. A Unix socket that nobody listens at any more is
// replaced; a new one is for its user alone (mode 0600). kBusy: somebody else listens there.
Result<std::vector<UniqueFd>> listen_at(const Address& address, Reach reach);

// Whether a listening socket that somebody else has made is within that reach; kInvalid: it is not.
Result<> check_bound(int listener, Reach reach);

// Takes the next connection of a listening socket, whom it is from, for people. kFenced: its user
// is neither ours nor root. kIo with EAGAIN: there is none now.
struct AcceptedSocket {
  UniqueFd socket;
  std::string peer;
  bool is_local = false;  // root or this server's own user, at a Unix socket
};
Result<AcceptedSocket> accept_socket(int listener);

}  // namespace ckpt
