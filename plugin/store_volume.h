// SPDX-License-Identifier: Apache-2.0
// A store by itself, for the tool: its primary may be stopped, or gone.
#pragma once

#include <memory>
#include <string>

#include "common/store_dialer.h"
#include "plugin/volume_api.h"

namespace ckpt {

// status(), checkpoints() and export_checkpoint(); what needs a primary is refused (kInvalid).
// Status and list change nothing; an export opens the store, which applies what is confirmed.
// kBusy: a server has it. kNotFound, kCorrupt: as the store's `volume` is.
Result<std::unique_ptr<VolumeApi>> open_store_volume(const std::string& store_path);

// The same of one behind backupd, which is asked. status() says what it knows, or why not.
std::unique_ptr<VolumeApi> open_remote_volume(const RemoteOptions& options);

}  // namespace ckpt
