// SPDX-License-Identifier: Apache-2.0
// A volume that nobody serves, for the tool.
#pragma once

#include <memory>
#include <string>

#include "common/tls_options.h"
#include "plugin/volume_api.h"

namespace ckpt {

// Reading (status, checkpoints) changes nothing. What changes, or compares, opens the volume as a
// server would, for as long as it takes, and stops it cleanly. backup, tls: as the plugin's
// parameters. kBusy: another server or tool has the image.
Result<std::unique_ptr<VolumeApi>> open_offline(const std::string& image_path,
                                                const std::string& state_path,
                                                const std::string& backup, const TlsOptions& tls);

}  // namespace ckpt
