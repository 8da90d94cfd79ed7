// SPDX-License-Identifier: Apache-2.0
#include "common/tls_options.h"

namespace ckpt {

Result<TlsUse> parse_tls_use(const std::string& word) {
  if (word == "off" || word == "require") {
    return word == "off" ? TlsUse::kOff : TlsUse::kRequire;
  }
  return fail(ErrorKind::kInvalid, "must be off or require");
}

Result<> check_tls(const TlsOptions& options) {
  const auto refuse = [](const char* why) { return fail(ErrorKind::kInvalid, why); };
  if (!options.certificates.empty() && !options.psk.empty()) {
    return refuse("tls-certificates and tls-psk: TLS takes one of them");
  }
  if (options.use == TlsUse::kOff && options.is_used()) {
    return refuse("tls=off, and tls-certificates or tls-psk: leave out one or the other");
  }
  if (options.use == TlsUse::kRequire && !options.is_used()) {
    return refuse("tls=require needs tls-certificates (a folder) or tls-psk (a file)");
  }
  if (!options.verifies_peer() && options.certificates.empty()) {
    return refuse("tls-verify-peer=off is about certificates: it needs tls-certificates");
  }
  return {};
}

Result<> check_said_tls(const TlsOptions& said) {
  TlsOptions rest = said;
  if (!said.is_used()) {
    rest.verify_peer.reset();
  }
  return check_tls(rest);
}

}  // namespace ckpt
