// SPDX-License-Identifier: Apache-2.0
// A volume's disk as a block device of this machine's kernel.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "common/block.h"
#include "tools/mount.h"

namespace ckpt {

// An NBD device that nbd-client(8) has attached, or a loop device above a file of nbdfuse(1).
struct AttachedDisk {
  std::string device;          // "/dev/nbd0", "/dev/loop0"
  uint64_t block_bytes = 512;  // of its logical blocks: a file system may rely on it
  std::string uri;             // of the server it is attached to
  std::string file{};          // of nbdfuse; empty: it is an NBD device
};

// The disk below a mount. uris: where the volume's server listens, the first that nbd-client can
// use is taken. kInvalid: the mount is not on such a device of just the volume's size, or on one
// whose content is not the image's; or it could not be attached again.
Result<AttachedDisk> find_disk(const Mount& mount, uint64_t size_bytes, const std::string& image,
                               const std::vector<std::string>& uris);

// The first of them that nbd-client can use; empty: none.
std::string usable_uri(const std::vector<std::string>& uris);

// Whether a device has the same content as an image from so many bytes on, as a disk and its image
// do; where a file system says who it is. kBusy: it has not. kUnreachable: the device cannot be
// read, as when its server is gone.
Result<> check_content(const std::string& device, const std::string& image,
                       uint64_t offset_bytes = 0);

// kBusy: something has the device for itself: a file system or another device is made of it or of a
// part of it.
Result<> check_unused(const AttachedDisk& disk);

// One to attach the disk as: an NBD device that is attached to nothing; where the kernel has none,
// a loop device above that file. kNotFound: there is no way here.
Result<AttachedDisk> free_disk(const std::string& file);

// Whether it is attached to anything now. kNotFound: the kernel has no such device.
Result<bool> has_size(const AttachedDisk& disk);

// Whether a server answers at a URI, without TLS, and serves this volume. kUnreachable; kInvalid:
// another one.
Result<> check_server(const std::string& uri, const Uuid& volume);

// Nothing may use it. Returns when the kernel has let go of it; 10 s at most.
Result<> detach(const AttachedDisk& disk);
// Returns when it has its size; 10 s at most.
Result<> attach(const AttachedDisk& disk);

// nbd-client's words for an NBD URI (NBD uri.md) without TLS; empty: it cannot.
std::vector<std::string> client_words(const std::string& uri);

}  // namespace ckpt
