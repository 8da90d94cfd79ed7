// SPDX-License-Identifier: Apache-2.0
// What a volume, or an image that could become one, is like from outside: looked up once, judged by
// volume_checks.h.
#pragma once

#include <optional>

#include "plugin/backup_room.h"
#include "tools/open_volume.h"

namespace ckpt {

// A directory; or, where it is still to be made, the nearest one above.
struct Place {
  std::string path{};  // as it was asked for
  bool exists = false;
  bool is_writable = false;
  std::string file_system{};  // its type
  uint64_t device = 0;
  uint64_t free_bytes = 0;
  // Whether files there can have holes made into them (fallocate(2), PUNCH_HOLE); kInvalid: they
  // cannot; otherwise it could not be tried.
  Result<> holes{};
};

struct ImageFacts {
  bool is_device = false;
  bool is_file = false;
  Result<> access{};  // to read and write
  uint64_t size_bytes = 0;
  uint64_t allocated_bytes = 0;
  std::string format{};  // by its first bytes; empty: raw
  Result<> direct{};     // kInvalid: no direct I/O; otherwise it could not be tried
  std::string own{};     // of a device: the NBD device of just its size that it is or is on
  Place place{};         // of a file: where it is
};

struct VolumeFacts {
  VolumePaths paths{};
  ImageFacts image{};
  bool has_state = false;  // it was served before
  Place state{};
  Place backup{};
  bool has_backup = false;      // the folder holds one
  std::string remote_backup{};  // it is behind the backupd at this address instead
  BackupRoom room{};
  Result<> state_export{};   // kInvalid: it is on an export of this very disk
  Result<> backup_export{};  // the same
  uint64_t maps_bytes = 0;   // what its written maps take
  bool has_proc = false;     // /proc/self/fd is there
  // What the volume says of itself, by a server or from its state; nothing: never served.
  std::optional<Result<VolumeStatus>> status{};
  bool served = false;
};

// Opens the image for reading, and nameless temporary files beside image, state and back-up.
// Blocks as VolumeOpener. kNotFound: there is no such image; kInvalid: it does not say which.
Result<VolumeFacts> look_at_volume(const VolumeName& name, const VolumeOpener& opener);

// What is known of a path's directory.
Place look_at_place(const std::string& path);

}  // namespace ckpt
