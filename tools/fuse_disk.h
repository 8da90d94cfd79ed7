// SPDX-License-Identifier: Apache-2.0
// A volume's disk as a file that nbdfuse(1) serves, below a loop device: what does instead of a
// kernel's NBD client.
#pragma once

#include <sys/types.h>

#include <optional>
#include <string>
#include <vector>

#include "common/block.h"
#include "tools/mount.h"

namespace ckpt {

struct AttachedDisk;

// The programs that it takes.
struct FusePrograms {
  std::string nbdfuse;
  std::string fusermount;
  std::string losetup;
};

// In a list of folders, as $PATH has it. kNotFound: what is to be installed.
Result<FusePrograms> find_fuse_programs(
    const std::string& path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");

// Where a volume's disk is served if it is nowhere else. Not in the state directory: `forget` and
// whoever copies it would meet the disk there; and not in $XDG_RUNTIME_DIR, which goes when its
// user logs out.
std::string fuse_file_of(const Uuid& volume);

// A process that serves a disk at a file.
struct FuseServer {
  pid_t pid = 0;
  std::string uri;  // what it is a client of; empty: it does not say
};

// By its words, from the working directory of who was given them. Nothing: it is another program,
// or serves another file. One that serves a file in a folder of its own (nbdfuse DIR/NAME) is none.
std::optional<FuseServer> parse_fuse_server(const std::vector<std::string>& words,
                                            const std::string& working_directory,
                                            const std::string& file);
// As its mount says, and /proc. Nothing: nothing is served there, or by another program.
std::optional<FuseServer> find_fuse_server(const std::string& file);

// The mount at this file, of any FUSE file system. Nothing: it is a file as others are.
std::optional<Mount> find_fuse_mount(const std::string& file);

// All files that are served so, for whichever volume, by their mounts. Only their loop devices need
// those; and in a mount namespace of its own CRIU cannot restore the mount of a file.
std::vector<std::string> fuse_files();

// The file below a loop device; empty: there is none, or this is none.
std::string file_below(const std::string& device);
// The loop devices, as "/dev/loop0", that a file is below.
std::vector<std::string> loops_upon(const std::string& file);

// kInvalid, with the way out: a loop device is not of just a whole file that nbdfuse serves, so
// that it could be made again.
Result<> check_fuse_disk(const std::string& device);

// kUnreachable, with the way out: the file below a loop device was served, and is not any more.
Result<> check_fuse_answers(const std::string& device);

// kBusy, which says who: something besides its loop device has the file.
Result<> check_only_user(const AttachedDisk& disk);

// As attach() and detach() of attached_disk.h. Each step looks at what is there.
Result<> attach_fuse(AttachedDisk& disk);
Result<> detach_fuse(const AttachedDisk& disk);

}  // namespace ckpt
