// SPDX-License-Identifier: Apache-2.0
// From what the user calls a volume to the volume: through its server where one runs, else in this
// process.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "common/store_dialer.h"
#include "plugin/volume_api.h"

namespace ckpt {

// How the user named a volume.
struct VolumeName {
  std::string path{};               // of the primary image or of its state directory, or a store's
  std::string state{};              // of a state directory elsewhere; empty: IMAGE.ckpt
  std::string backup = "embedded";  // as the plugin's parameter; only while no server runs
  TlsOptions tls{};                 // to a back-up behind backupd
};

// What the name stands for. Absolute paths.
struct VolumePaths {
  std::string image;  // empty: not known from a state directory called otherwise than IMAGE.ckpt
  std::string state;
  bool is_store = false;                  // state is that of a store by itself
  std::optional<RemoteOptions> remote{};  // which is behind this backupd; state is its name
  std::string remote_name{};  // of a volume there whose UUID is not known yet; empty with a nil
                              // UUID: the backupd itself
  [[nodiscard]] bool is_backupd() const {
    return remote.has_value() && remote->volume.is_nil() && remote_name.empty();
  }
};

struct OpenedVolume {
  std::unique_ptr<VolumeApi> volume;
  bool served = false;  // by a running server
  VolumePaths paths;
};

using VolumeOpener = std::function<Result<OpenedVolume>(const VolumeName&)>;

// Nothing is opened, only looked for. kNotFound: there is no such volume. A path that is none and
// reads as backup_name.h says is a store behind backupd, or that itself.
Result<VolumePaths> find_volume(const VolumeName& name);

// The same; an image that was never served counts as well, with the state directory it would get.
Result<VolumePaths> find_candidate(const VolumeName& name);

// kInvalid for what is a back-up by itself, where a primary is needed.
Result<> require_primary(const VolumePaths& paths);

// Blocks as long as a server needs to take a connection, 10 s at most.
Result<OpenedVolume> open_volume(const VolumeName& name);

}  // namespace ckpt
