// SPDX-License-Identifier: Apache-2.0
// Space for a back-up image: what it may need, and what there is.
#pragma once

#include <cstdint>
#include <string>

namespace ckpt {

// All in bytes.
struct BackupRoom {
  std::string path;    // of the store's directory
  uint64_t size = 0;   // of the disk: its back-up image may grow to that
  uint64_t there = 0;  // what the back-up image takes already
  uint64_t free = 0;   // that it may still take
};

// Of a back-up that is in a directory, or will be.
BackupRoom room_for_backup(const std::string& path, uint64_t size_bytes, uint64_t free_bytes);

// What people should know about space: a full back-up would not fit. Empty: it would.
std::string space_note(const BackupRoom& room);

}  // namespace ckpt
