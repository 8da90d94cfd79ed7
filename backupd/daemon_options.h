// SPDX-License-Identifier: Apache-2.0
// The daemon's command line, and its configuration file.
#pragma once

#include <chrono>
#include <memory>
#include <vector>

#include "backupd/access_list.h"
#include "backupd/relay_target.h"
#include "common/tls_options.h"

namespace ckpt {

inline constexpr std::chrono::seconds kSilenceMax{3600};

struct DaemonOptions {
  std::vector<Address> listen{};
  std::string store{};
  std::string pid_file{};
  bool foreground = false;
  bool check_only = false;                     // --check-config
  TlsOptions tls{};                            // of TCP; Unix sockets have none
  std::shared_ptr<const AccessList> access{};  // nothing: whoever connects may do all
  std::chrono::milliseconds silence{15000};
  std::vector<RelayTarget> relays{};  // to where checkpoints are passed on
};

// Reads the configuration file too, if one is named; the command line goes before it. kInvalid says
// what is wrong; kVoid: help or version was asked for, which is the text.
Result<DaemonOptions> parse_daemon_options(int argc, const char* const* argv);
// For --listen, and its like in the file.
Result<std::vector<Address>> parse_addresses(const std::vector<std::string>& texts);

}  // namespace ckpt
