// SPDX-License-Identifier: Apache-2.0
// File systems that are mounted on a volume's disk.
#pragma once

#include <sys/types.h>

#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "common/result.h"

namespace ckpt {

// A line of proc_pid_mountinfo(5).
struct Mount {
  std::string point;    // where it is
  std::string source;   // "/dev/nbd0"
  std::string type;     // "ext4"
  std::string options;  // as mount(8) takes them
  dev_t device = 0;
  std::string root;  // which folder of the file system; "/": all of it
};

// What is not as proc_pid_mountinfo(5) says is left out.
std::vector<Mount> parse_mounts(std::string_view mountinfo);

// The mount at just this folder; the last one where several lie upon each other. kNotFound: there
// is none.
Result<Mount> find_mount(const std::string& point);

// Who keeps a file system from being unmounted, for people, at most ten: processes with a file, a
// folder or a program of it. Those in `except` do not count.
std::vector<std::string> users_of(const Mount& mount, const std::set<pid_t>& except = {});

// Where else it is mounted, for people, also in the mount namespaces of other processes.
std::vector<std::string> other_mounts_of(const Mount& mount);

// All mounts that this process sees.
std::vector<Mount> all_mounts();

// Writes all that is cached of it to its disk: syncfs(2). Blocks as long as that takes.
Result<> sync_mount(const Mount& mount);

// kBusy, which names the culprits: it is still used after 2 s, or is mounted somewhere else, too.
Result<> unmount(const Mount& mount);

// The same again, by mount(8).
Result<> mount_again(const Mount& mount);

}  // namespace ckpt
