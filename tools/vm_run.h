// SPDX-License-Identifier: Apache-2.0
// A virtual machine of QEMU's on volumes: how it is started.
#pragma once

#include <string>
#include <vector>

#include "tools/open_volume.h"

namespace ckpt {

// The monitor of a machine that was started so, in a volume's state directory.
std::string monitor_of(const VolumePaths& paths);

// The words of QEMU: the user's, what they leave out of what any machine needs, each volume as a
// disk, in this order, and a monitor. kInvalid: a volume's server listens nowhere that QEMU could
// connect to without TLS, or the monitor's path is too long for a socket.
Result<std::vector<std::string>> words_of_machine(const std::vector<std::string>& words,
                                                  const std::vector<VolumeStatus>& volumes,
                                                  const std::string& monitor);

// Becomes that program, found in $PATH. Returns only if it cannot.
Result<> become(const std::vector<std::string>& words);

}  // namespace ckpt
