// SPDX-License-Identifier: Apache-2.0
// backupd: keeps the back-ups of volumes that nbdkit-ckpt-plugin serves on other machines.
#include <cstdio>

#include "backupd/daemon.h"

int main(int argc, char** argv) {
  const ckpt::Reparse parse = [=] { return ckpt::parse_daemon_options(argc, argv); };
  const auto options = parse();
  if (!options) {
    const bool was_asked = options.error().kind == ckpt::ErrorKind::kVoid;
    std::fprintf(was_asked ? stdout : stderr, was_asked ? "%s\n" : "backupd: %s\n",
                 options.error().context.c_str());
    return was_asked ? 0 : 2;
  }
  if (const auto served = ckpt::run_daemon(*options, parse); !served) {
    std::fprintf(stderr, "backupd: %s\n", served.error().message().c_str());
    return 1;
  }
  return 0;
}
