// SPDX-License-Identifier: Apache-2.0
// Which primary a session is of: a volume has one at a time, and a copy of it is another.
#pragma once

#include <string>

#include "common/block.h"

namespace ckpt {

inline constexpr size_t kHostBytesMax = 255;
inline constexpr size_t kImagePathBytesMax = 1024;

struct PrimaryPlace {
  // Of the image, not of who serves it: a restarted primary's is the same, a copy's another.
  Digest identity{};
  std::string host;  // for people, as the path is
  std::string path;  // of the image
  // "web1:/srv/disk.img"
  [[nodiscard]] std::string to_string() const { return host + ":" + path; }
};

// A place of that host and path, whatever bytes they are: made printable; of a path that is too
// long the end, which tells more.
PrimaryPlace make_place(const Digest& identity, const std::string& host, const std::string& path);
// Has an identity, a host and a path; both fit, and may be shown on a terminal.
bool valid_place(const PrimaryPlace& place);

}  // namespace ckpt
