// SPDX-License-Identifier: Apache-2.0
// The daemon's command line.
#pragma once

#include <chrono>
#include <vector>

#include "common/address.h"

namespace ckpt {

struct DaemonOptions {
  std::vector<Address> listen;
  std::string store;
  std::string pid_file;
  bool foreground = false;
  bool tls_off = false;  // said aloud: listen beyond this machine without TLS
  std::chrono::milliseconds silence{15000};
};

// kInvalid says what is wrong with it; kVoid: help or version was asked for, which is the text.
Result<DaemonOptions> parse_daemon_options(int argc, const char* const* argv);

}  // namespace ckpt
