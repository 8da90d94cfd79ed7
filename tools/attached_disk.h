// SPDX-License-Identifier: Apache-2.0
// A volume's disk as a block device of this machine's kernel.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "common/block.h"
#include "plugin/volume_api.h"
#include "tools/mount.h"

namespace ckpt {

// An NBD device that nbd-client(8) has attached; or a loop device of a file that nbdfuse(1) serves
// (fuse_disk.h).
struct AttachedDisk {
  std::string device;          // "/dev/nbd0", "/dev/loop0"
  uint64_t block_bytes = 512;  // of its logical blocks: a file system may rely on it
  std::string uri;     // of the server it is attached to; empty: none that it could be again
  std::string file{};  // that nbdfuse serves; empty: it is an NBD device of the kernel
};

// The disk below a mount. uri: for an NBD device the first at which the volume's server listens and
// that nbd-client can use; else that of nbdfuse. kInvalid: the mount is not on a device of just the
// volume's size, or on one whose content is not the image's; or the device could not be made again.
// kUnreachable: it cannot be read, as when its server is gone.
Result<AttachedDisk> find_disk(const Mount& mount, const VolumeStatus& status);

// One that the volume's disk can be attached as: an NBD device where the kernel has a client of its
// own, which is loaded if need be; else by nbdfuse, where it may be already. kNotFound, with what
// is to be installed: neither can be.
Result<AttachedDisk> free_disk(const VolumeStatus& status);

// The first of them that nbd-client, and nbdfuse, can use; empty: none.
std::string usable_uri(const std::vector<std::string>& uris);

// Whether a device has the same content as an image from so many bytes on, as a disk and its image
// do; where a file system says who it is. kBusy: it has not. kUnreachable: the device cannot be
// read, as when its server is gone.
Result<> check_content(const std::string& device, const std::string& image,
                       uint64_t offset_bytes = 0);

// kBusy: something has the device for itself: a file system or another device is made of it or of a
// part of it.
Result<> check_unused(const std::string& device);

// Whether it is attached to anything now, or something is left of that. kNotFound: the kernel has
// no such device.
Result<bool> has_size(const AttachedDisk& disk);

// Whether a server answers at a URI, without TLS, and serves this volume. kUnreachable; kInvalid:
// another one.
Result<> check_server(const std::string& uri, const Uuid& volume);

[[nodiscard]] bool can_read(const AttachedDisk& disk);

// The kernel asks the server for nothing more, and what it has asked for fails. It may be mounted.
Result<> disconnect(const AttachedDisk& disk);

// Returns when the kernel has let go of it; 10 s at most for each step. kBusy: something uses it.
Result<> detach(const AttachedDisk& disk);
// Returns when it has its size; 10 s at most, or 30 s by nbdfuse. A loop device becomes another one
// where its number has been taken.
Result<> attach(AttachedDisk& disk);

// What is in a URI: "%41" is "A".
std::string percent_decode(const std::string& text);

// nbd-client's words for an NBD URI (NBD uri.md) without TLS; empty: it cannot.
std::vector<std::string> client_words(const std::string& uri);

}  // namespace ckpt
