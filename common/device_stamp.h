// SPDX-License-Identifier: Apache-2.0
// What tells one state of a block device from another, as far as the kernel knows.
#pragma once

#include <sys/types.h>

#include <string>

#include "common/file.h"

namespace ckpt {

// A device has no times: in their place are the sectors that it was told to discard (modified) and
// to write (changed) since it appeared, each as a nanosecond; any write moves them. Its inode is
// its sequence number, which the kernel gives to every disk that appears (sysfs, diskseq). All this
// holds for one boot only. Where the kernel does not count (queue/iostats is 0, drivers such as
// brd), `changed` is the time given, so that no two stamps are equal.
//
// Not seen: writes to a partition by way of its disk, to a mapped device by way of those below it,
// to a loop device's file.
//
// sys: where sysfs is mounted. Threads: any.
FileStamp stamp_of_device(dev_t device, uint64_t size_bytes, WallTime now,
                          const std::string& sys = "/sys");

}  // namespace ckpt
