// SPDX-License-Identifier: Apache-2.0
// A volume's disk on a kernel without an NBD client: a file that nbdfuse(1) serves, below a loop
// device.
#pragma once

#include "tools/attached_disk.h"

namespace ckpt {

// A loop device that is attached to nothing (losetup(8)). kNotFound: what would be needed is not
// installed, or not in the kernel.
Result<std::string> free_loop_device();

// Whether its loop device is attached to something else: somebody may have taken it meanwhile.
bool is_taken(const AttachedDisk& disk);

// Each looks at what is there already, so that it goes on where it was interrupted.

// Returns when the device has the disk's content; 10 s at most. kBusy: the device has another file.
Result<> attach_by_fuse(const AttachedDisk& disk);
// Nothing may use it. Returns when nbdfuse has ended, and so has its connection; 10 s at most.
Result<> detach_by_fuse(const AttachedDisk& disk);

}  // namespace ckpt
