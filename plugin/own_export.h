// SPDX-License-Identifier: Apache-2.0
// Whether a file lies on an export of ours: what the server writes there would wait for the server.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <string>

#include "common/block.h"
#include "common/result.h"

namespace ckpt {

// What an export of ours says of itself (NBD proto.md, NBD_INFO_DESCRIPTION): "ckpt volume UUID".
std::string describe_export(const Uuid& volume);

// Looks through partitions, device mapper and loop devices down to NBD devices and files served by
// FUSE (nbdfuse). One that has just the size of the disk is taken for an export of it: nothing in
// sysfs(5) tells whose server is behind it. Not seen below file systems without a block device of
// their own (btrfs, overlayfs).
//
// Threads: any.
class OwnExport {
 public:
  // sys: where sysfs is mounted.
  explicit OwnExport(uint64_t size_bytes, std::string sys = "/sys")
      : size_bytes_(size_bytes), sys_(std::move(sys)) {}

  // kInvalid, with the way out, if the path, or where it would be made, is on one. What cannot be
  // found out is no reason to refuse.
  [[nodiscard]] Result<> refuse(const std::string& path) const;
  // The name of the device, as "nbd0", by which this block device is on one; empty: it is not.
  [[nodiscard]] std::string find(dev_t device) const;

 private:
  [[nodiscard]] std::string find_in(const std::string& folder, int depth) const;
  [[nodiscard]] std::string find_below_loop(const std::string& folder, int depth) const;
  [[nodiscard]] std::string folder_of(dev_t device) const;

  uint64_t size_bytes_;
  std::string sys_;
};

}  // namespace ckpt
