// SPDX-License-Identifier: Apache-2.0
#include "plugin/backup_place.h"

namespace ckpt {
namespace {

constexpr std::string_view kTlsOff = " tls=off";
constexpr std::string_view kBelieveAll = " tls-verify-peer=off";
constexpr std::string_view kCertificates = " tls-certificates=";
constexpr std::string_view kPsk = " tls-psk=";

// Whether the text begins with it, which is taken away.
bool take(std::string_view& text, std::string_view begin) {
  const bool begins = text.starts_with(begin);
  text.remove_prefix(begins ? begin.size() : 0);
  return begins;
}

Result<TlsOptions> parse_tls(std::string_view text) {
  TlsOptions tls;
  if (text.empty()) {
    return tls;
  }
  if (text == kTlsOff) {
    tls.use = TlsUse::kOff;
    return tls;
  }
  if (take(text, kBelieveAll)) {
    tls.verify_peer = false;
  }
  if (take(text, kCertificates)) {
    tls.certificates = text;
  } else if (take(text, kPsk)) {
    tls.psk = text;
  }
  return tls.is_used()
             ? Result<TlsOptions>(tls)
             : fail(ErrorKind::kInvalid,
                    "the record of this volume says of TLS what this version of ckpt does "
                    "not know:" +
                        std::string(text));
}

}  // namespace

bool is_remote_place(const std::string& place) { return !place.empty() && place.front() != '/'; }

// A path may have spaces; a host has none.
Result<RemoteOptions> parse_remote_place(const std::string& place) {
  RemoteOptions options;
  const size_t end = place.starts_with("unix:") ? std::string::npos : place.find(' ');
  CKPT_ASSIGN(options.address, parse_address(place.substr(0, end)));
  if (end != std::string::npos) {
    CKPT_ASSIGN(options.tls, parse_tls(std::string_view(place).substr(end)));
  }
  return options;
}

std::string remote_place(const Address& address, const TlsOptions& tls) {
  std::string place = address.to_string();
  if (address.is_unix()) {
    return place;
  }
  if (tls.is_used()) {
    place += tls.verifies_peer() ? "" : kBelieveAll;
    place.append(tls.psk.empty() ? kCertificates : kPsk);
    place += tls.psk.empty() ? tls.certificates : tls.psk;
  } else if (tls.use == TlsUse::kOff) {
    place += kTlsOff;
  }
  return place;
}

Result<RemoteOptions> choose_remote_place(const std::string& named, const TlsOptions& said,
                                          const std::string& recorded) {
  CKPT_ASSIGN(RemoteOptions chosen, parse_remote_place(named));
  if (is_remote_place(recorded)) {
    CKPT_ASSIGN(const RemoteOptions before, parse_remote_place(recorded));
    chosen.tls = before.address == chosen.address ? before.tls : chosen.tls;
  }
  if (said.is_used() || said.use != TlsUse::kUnsaid) {
    chosen.tls = said;
  } else if (said.verify_peer) {
    chosen.tls.verify_peer = said.verify_peer;
  }
  CKPT_TRY(check_tls(chosen.tls));
  if (chosen.address.is_unix() && chosen.tls.is_used()) {
    return fail(
        ErrorKind::kInvalid,
        chosen.address.to_string() +
            " is a Unix socket, which needs no TLS: leave out tls-certificates and tls-psk");
  }
  return chosen;
}

std::string folder_of_place(const std::string& place, const std::string& state_path) {
  return place.empty() ? state_path + "/store" : place;
}

std::string describe_place(const std::string& place, const std::string& state_path) {
  if (const auto remote = parse_remote_place(place); is_remote_place(place) && remote) {
    return remote->address.to_string();
  }
  return "embedded:" + folder_of_place(place, state_path);
}

}  // namespace ckpt
