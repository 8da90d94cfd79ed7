// SPDX-License-Identifier: Apache-2.0
// What is said of TLS to a program, in nbdkit's words (nbdkit-tls(1)).
#pragma once

#include <optional>
#include <string>

#include "common/socket.h"

namespace ckpt {

enum class TlsUse { kUnsaid, kOff, kRequire };

struct TlsOptions {
  std::string certificates{};  // tls-certificates: a folder; empty: none
  std::string psk{};           // tls-psk: a file; empty: none
  // tls-verify-peer. A server's clients must have a certificate of the same authority; a client
  // wants one of the host that it has connected to. Keys are always verified.
  std::optional<bool> verify_peer{};  // nothing: yes
  TlsUse use = TlsUse::kUnsaid;       // tls

  [[nodiscard]] bool is_used() const { return !certificates.empty() || !psk.empty(); }
  [[nodiscard]] bool verifies_peer() const { return verify_peer.value_or(true); }
  // Without TLS no further than this machine, unless that was said aloud.
  [[nodiscard]] Reach reach() const {
    return is_used() || use == TlsUse::kOff ? Reach::kAnywhere : Reach::kMachine;
  }
  bool operator==(const TlsOptions&) const = default;
};

// off or require. kInvalid: another word.
Result<TlsUse> parse_tls_use(const std::string& word);
// kInvalid: what was said contradicts itself, or something is missing. Files are not looked at.
Result<> check_tls(const TlsOptions& options);
// The same of what completes what a volume's record says: verify_peer may be about certificates
// that are named there.
Result<> check_said_tls(const TlsOptions& said);

}  // namespace ckpt
