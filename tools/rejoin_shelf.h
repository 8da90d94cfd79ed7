// SPDX-License-Identifier: Apache-2.0
// Where an image goes that becomes a back-up.
#pragma once

#include "tools/open_volume.h"

namespace ckpt {

// The folder of this machine's backupd: what was given as --store; where nothing was, the one that
// the image of a promoted back-up is in. kInvalid: it must be said.
Result<std::string> choose_shelf(const VolumePaths& paths, const std::string& store);

}  // namespace ckpt
