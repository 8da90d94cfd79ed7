// SPDX-License-Identifier: Apache-2.0
// What this machine has of what ckpt needs: looked up once, judged by machine_checks.h.
#pragma once

#include <cstdint>
#include <string>

#include "common/result.h"

namespace ckpt {

enum class NbdModule { kLoaded, kLoadable, kMissing };

// The tmpfs that the written maps would be on.
struct MapsPlace {
  std::string path;
  uint64_t free_bytes = 0;
};

struct MachineFacts {
  std::string kernel{};  // its release, "6.1.0-18-amd64"
  NbdModule nbd = NbdModule::kMissing;
  Result<> uring{};              // why this process cannot have a ring
  std::string uring_disabled{};  // sysctl kernel.io_uring_disabled; empty: it has none (before 6.6)
  // Paths; empty: not found.
  std::string nbdkit{};
  std::string nbd_client{};
  std::string no_fuse_disk{};  // what nbdfuse with a loop device would need; empty: nothing
  std::string qemu{};          // for machines like this one, if there is one
  std::string criu{};
  std::string criu_problem{};                          // what `criu check` says; empty: nothing
  Result<std::string> nbdkit_version = std::string();  // what `nbdkit --version` says
  Result<std::string> plugin = std::string();          // what `nbdkit ckpt --dump-plugin` says
  Result<std::string> qemu_version = std::string();    // what `qemu-system-… --version` says
  Result<> write_protection{};  // why this user's QEMU cannot save a memory while the machine runs
  std::string unprivileged_userfaultfd{};  // sysctl vm.unprivileged_userfaultfd; empty: it has none
  bool may_trace = false;                  // CAP_SYS_PTRACE, which does without that sysctl
  bool soft_dirty = false;                 // the kernel tells which pages a process has written
  Result<> namespaces{};  // why this user cannot have those that `run` starts a command in
  bool is_root = false;
  Result<MapsPlace> maps = MapsPlace{};
  std::string runtime_directory{};  // $XDG_RUNTIME_DIR
  uint64_t open_files_max = 0;      // of this process, and of what it starts
  uint64_t file_bytes_max = 0;      // UINT64_MAX: not limited
};

// root: where the machine's files are. release: of the running kernel.
NbdModule find_nbd_module(const std::string& root, const std::string& release);

// Of a list of folders, as $PATH has it: that for such machines (uname -m), else any; empty: there
// is none.
std::string find_qemu(const std::string& path, const std::string& machine);

// Makes the directory that the written maps would be in, as a server does; changes nothing else.
// Blocks as long as nbdkit and QEMU take, 30 s at most.
MachineFacts look_at_machine();

}  // namespace ckpt
