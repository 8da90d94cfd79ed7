// SPDX-License-Identifier: Apache-2.0
#include "plugin/backup_room.h"

#include <sys/stat.h>

namespace ckpt {

BackupRoom room_for_backup(const std::string& path, uint64_t size_bytes, uint64_t free_bytes) {
  constexpr uint64_t kStatBlockBytes = 512;
  struct stat backup {};
  const bool exists = stat((path + "/backup.img").c_str(), &backup) == 0;
  const uint64_t there = exists ? static_cast<uint64_t>(backup.st_blocks) * kStatBlockBytes : 0;
  return {path, size_bytes, there, free_bytes};
}

std::string space_note(const BackupRoom& room) {
  if (room.there + room.free >= room.size) {
    return "";
  }
  return "the back-up in " + room.path + " may grow to " + std::to_string(room.size) + " bytes; " +
         std::to_string(room.there) + " are there and " + std::to_string(room.free) +
         " free: checkpoints will fail when the disk fills up further than that";
}

}  // namespace ckpt
