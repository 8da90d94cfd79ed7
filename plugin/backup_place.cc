// SPDX-License-Identifier: Apache-2.0
#include "plugin/backup_place.h"

namespace ckpt {
namespace {

constexpr std::string_view kTlsOff = " tls=off";

}  // namespace

bool is_remote_place(const std::string& place) { return !place.empty() && place.front() != '/'; }

Result<RemoteOptions> parse_remote_place(const std::string& place) {
  RemoteOptions options;
  std::string address = place;
  if (address.ends_with(kTlsOff)) {
    address.resize(address.size() - kTlsOff.size());
    options.reach = Reach::kAnywhere;
  }
  CKPT_ASSIGN(options.address, parse_address(address));
  return options;
}

std::string remote_place(const Address& address, bool tls_off) {
  return address.to_string() + (tls_off && !address.is_unix() ? std::string(kTlsOff) : "");
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
