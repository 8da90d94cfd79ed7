// SPDX-License-Identifier: Apache-2.0
#include "tools/machine_checks.h"

#include <cerrno>
#include <cstdio>
#include <limits>
#include <sstream>

#include "tools/format.h"

namespace ckpt {
namespace {

// A server has about 20 open by itself, and some more for each connection and checkpoint in flight.
constexpr uint64_t kOpenFilesLow = 256;
// Written maps of a disk of 256 GiB.
constexpr uint64_t kMapsBytesLow = uint64_t{16} << 20U;

Check check_nbdkit(const MachineFacts& facts) {
  constexpr const char* kName = "nbdkit";
  const std::string advice = "install nbdkit " + std::to_string(kNbdkitMajor) + "." +
                             std::to_string(kNbdkitMinor) + " or later";
  if (facts.nbdkit.empty()) {
    return failed(kName, "not found on PATH", advice + ", or add its folder to PATH");
  }
  if (!facts.nbdkit_version) {
    return failed(kName, facts.nbdkit + " does not run: " + facts.nbdkit_version.error().message(),
                  advice);
  }
  int major = 0;
  int minor = 0;
  if (std::sscanf(facts.nbdkit_version->c_str(), "nbdkit %9d.%9d", &major, &minor) != 2) {
    return failed(kName, facts.nbdkit + " does not say its version", advice);
  }
  const std::string detail =
      facts.nbdkit_version->substr(0, facts.nbdkit_version->find('\n')) + ", " + facts.nbdkit;
  return std::pair(major, minor) >= std::pair(kNbdkitMajor, kNbdkitMinor)
             ? passed(kName, detail)
             : failed(kName, detail + ": too old", advice);
}

// The value of a line KEY=VALUE; empty: there is none.
std::string value_of(const std::string& text, const std::string& key) {
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) {
    if (line.starts_with(key + "=")) {
      return line.substr(key.size() + 1);
    }
  }
  return "";
}

Check check_plugin(const MachineFacts& facts) {
  constexpr const char* kName = "plugin";
  if (facts.nbdkit.empty()) {
    return failed(kName, "not looked for: there is no nbdkit", "install nbdkit first");
  }
  if (!facts.plugin) {
    return failed(kName, "nbdkit ckpt does not work: " + facts.plugin.error().message(),
                  "install it into nbdkit's plugin folder (meson install), or give nbdkit the path "
                  "of nbdkit-ckpt-plugin.so in place of the word ckpt");
  }
  const std::string version = value_of(*facts.plugin, "ckpt_version");
  const std::string detail = "version " + version + ", " + value_of(*facts.plugin, "path");
  return version == CKPT_VERSION
             ? passed(kName, detail)
             : failed(kName, detail + ", but ckpt-tool is version " CKPT_VERSION,
                      "install plugin and tool from one build");
}

Check check_maps(const MachineFacts& facts) {
  constexpr const char* kName = "written-maps";
  if (!facts.maps) {
    return failed(kName, facts.maps.error().message(),
                  "set XDG_RUNTIME_DIR to a folder on a tmpfs, or mount one on /run or /dev/shm");
  }
  const MapsPlace& place = *facts.maps;
  const std::string detail = place.path + ", " + format_bytes(place.free_bytes) + " free";
  if (place.free_bytes < kMapsBytesLow) {
    return noted(kName,
                 detail +
                     ": little; when it is full, a killed server no longer knows which "
                     "blocks had changed, and compares more",
                 "free some space on that tmpfs, or make it larger (mount -o remount,size=)");
  }
  const std::string& wanted = facts.runtime_directory;
  if (!wanted.empty() && !place.path.starts_with(wanted + "/")) {
    return noted(
        kName,
        detail + ", because XDG_RUNTIME_DIR (" + wanted + ") is no tmpfs that this user can write",
        "set XDG_RUNTIME_DIR to one, or leave it unset");
  }
  return passed(kName, detail);
}

std::string uring_advice(const MachineFacts& facts) {
  switch (facts.uring.error().number) {
    case ENOSYS: return "use a kernel of 5.6 or later that has it (CONFIG_IO_URING)";
    case ENOMEM: return "raise the limit of locked memory (ulimit -l)";
    case EPERM: break;
    default: return "see io_uring_setup(2) for what this error means";
  }
  const bool by_sysctl = !facts.uring_disabled.empty() && facts.uring_disabled != "0";
  return by_sysctl ? "allow it: sysctl kernel.io_uring_disabled=0"
                   : "allow the system calls io_uring_* in the seccomp profile of this container "
                     "or service";
}

// Not needed: io=auto does the same with other system calls.
Check check_uring(const MachineFacts& facts) {
  constexpr const char* kName = "io_uring";
  if (facts.uring) {
    return passed(kName, "allowed");
  }
  std::string detail = facts.uring.error().message();
  if (!facts.uring_disabled.empty() && facts.uring_disabled != "0") {
    detail += " (kernel.io_uring_disabled = " + facts.uring_disabled + ")";
  }
  return noted(kName, detail + ": io=auto does without, more slowly; io=uring is refused",
               uring_advice(facts));
}

// Not needed: there are clients in user space.
Check check_nbd_module(const MachineFacts& facts) {
  constexpr const char* kName = "nbd-module";
  switch (facts.nbd) {
    case NbdModule::kLoaded: return passed(kName, "loaded");
    case NbdModule::kLoadable:
      return noted(kName, "not loaded: there is no /dev/nbd0 yet", "load it: modprobe nbd");
    case NbdModule::kMissing: break;
  }
  const std::string detail =
      "none for kernel " + facts.kernel + ": nbd-client cannot make /dev/nbd0 of a disk";
  return facts.no_fuse_disk.empty()
             ? noted(kName,
                     detail +
                         "; `ckpt-tool run` and `rollback --fs` do with nbdfuse and a loop "
                         "device, more slowly",
                     "install the module if that matters")
             : noted(kName, detail + "; nbdfuse with a loop device cannot do it either",
                     "install the module, or what nbdfuse needs: " + facts.no_fuse_disk +
                         "; QEMU and libnbd's tools do without both");
}

struct Program {
  const char* name;
  const char* package;
  const char* use;
};

Check check_program(const Program& program, const std::string& path) {
  return path.empty() ? noted(program.name, std::string("not found; needed only ") + program.use,
                              std::string("install it if you want that: ") + program.package)
                      : passed(program.name, path);
}

// Not needed: only virtual machines are of it.
Check check_qemu(const MachineFacts& facts) {
  constexpr const char* kName = "qemu";
  if (facts.qemu.empty()) {
    return check_program({kName, "qemu-system-x86", "for virtual machines on a disk"}, facts.qemu);
  }
  const std::string advice = "install QEMU " + std::to_string(kQemuMajor) +
                             ".0 or later, if a machine is to go back with its memory";
  if (!facts.qemu_version) {
    return noted(kName, facts.qemu + " does not run: " + facts.qemu_version.error().message(),
                 advice);
  }
  int major = 0;
  if (std::sscanf(facts.qemu_version->c_str(), "QEMU emulator version %9d.", &major) != 1) {
    return noted(kName, facts.qemu + " does not say its version", advice);
  }
  const std::string detail =
      facts.qemu_version->substr(0, facts.qemu_version->find('\n')) + ", " + facts.qemu;
  return major >= kQemuMajor ? passed(kName, detail) : noted(kName, detail + ": too old", advice);
}

std::string background_advice(const MachineFacts& facts) {
  switch (facts.write_protection.error().number) {
    case EPERM: break;
    case ENOSYS:
    case EINVAL:
    case EOPNOTSUPP:
      return "use a kernel of 5.7 or later that has it (CONFIG_USERFAULTFD), on x86-64 or arm64";
    default: return "see userfaultfd(2) for what this error means";
  }
  return facts.unprivileged_userfaultfd == "0" && !facts.may_trace
             ? "allow it: sysctl vm.unprivileged_userfaultfd=1; or run QEMU as root"
             : "allow the system call userfaultfd in the seccomp profile of this container or "
               "service";
}

// Not needed: the machine stands still longer without. The rule is QEMU's; it is the user that QEMU
// runs as who counts.
Check check_background_save(const MachineFacts& facts) {
  constexpr const char* kName = "qemu-background";
  if (!facts.write_protection) {
    const std::string sysctl = facts.unprivileged_userfaultfd;
    return noted(kName,
                 facts.write_protection.error().message() +
                     (sysctl.empty() ? "" : " (vm.unprivileged_userfaultfd = " + sysctl + ")") +
                     ": `vm checkpoint` leaves a machine standing still until its memory is saved",
                 background_advice(facts));
  }
  const bool is_for_root = facts.may_trace && facts.unprivileged_userfaultfd == "0";
  return passed(kName,
                std::string("a machine runs on while its memory is saved") +
                    (is_for_root ? ", if its QEMU is root's as this is; another user's, such as "
                                   "libvirt's, needs sysctl vm.unprivileged_userfaultfd=1"
                                 : ""));
}

// Not needed: only processes that go back with their disk want it.
Check check_criu(const MachineFacts& facts) {
  constexpr const char* kName = "criu";
  if (facts.criu.empty() || facts.criu_problem.empty()) {
    return check_program({kName, "criu", "to save processes with their disk"}, facts.criu);
  }
  return noted(kName, facts.criu + " cannot save processes here: " + facts.criu_problem,
               "use a CRIU that knows kernel " + facts.kernel +
                   " (a later one, as a rule), or a kernel that it knows; load what modules it "
                   "misses; see `criu check`");
}

// Not needed: ckpt saves the memory while the processes stand still.
Check check_soft_dirty(const MachineFacts& facts) {
  constexpr const char* kName = "soft-dirty";
  return facts.soft_dirty
             ? passed(kName, "kernel " + facts.kernel +
                                 " tells which memory a process has written: CRIU's pre-dump works")
             : noted(kName,
                     "kernel " + facts.kernel +
                         " does not tell which memory a process has written: no pre-dump and no "
                         "--track-mem by CRIU; `ckpt-tool checkpoint --criu` and `run` do without",
                     "use a kernel with CONFIG_MEM_SOFT_DIRTY if you want those (`criu check "
                     "--feature mem_dirty_track`)");
}

std::string namespaces_advice(const MachineFacts& facts) {
  if (!facts.is_root) {
    return "run `ckpt-tool run` as root";
  }
  switch (facts.namespaces.error().number) {
    case ENOSPC: return "allow more: sysctl user.max_pid_namespaces and user.max_mnt_namespaces";
    case EINVAL:
    case ENOSYS: return "use a kernel with CONFIG_PID_NS and CONFIG_NAMESPACES";
    default:
      return "give this container or service CAP_SYS_ADMIN, and allow unshare and mount in its "
             "seccomp profile (podman run --privileged)";
  }
}

// Not needed: only `run` starts a command so.
Check check_namespaces(const MachineFacts& facts) {
  constexpr const char* kName = "pid-namespace";
  return facts.namespaces ? passed(kName, "allowed: `ckpt-tool run` can start a command in its own")
                          : noted(kName,
                                  facts.namespaces.error().message() +
                                      ": `ckpt-tool run` cannot start a command here",
                                  namespaces_advice(facts));
}

Check check_open_files(const MachineFacts& facts) {
  constexpr const char* kName = "open-files";
  const std::string limit = std::to_string(facts.open_files_max);
  return facts.open_files_max < kOpenFilesLow
             ? noted(kName, "limited to " + limit + ": little for many clients",
                     "raise it where the server is started: ulimit -n 1024")
             : passed(kName, "up to " + limit);
}

Check check_file_size(const MachineFacts& facts) {
  constexpr const char* kName = "file-size";
  return facts.file_bytes_max == std::numeric_limits<uint64_t>::max()
             ? passed(kName, "not limited")
             : noted(kName,
                     "limited to " + format_bytes_exact(facts.file_bytes_max) +
                         ": no image can grow beyond that",
                     "lift it where the server is started: ulimit -f unlimited");
}

}  // namespace

std::vector<Check> check_machine(const MachineFacts& facts) {
  return {
      check_nbdkit(facts),
      check_plugin(facts),
      check_maps(facts),
      check_uring(facts),
      check_open_files(facts),
      check_file_size(facts),
      check_nbd_module(facts),
      check_program({"nbd-client", "nbd-client", "to make a /dev/nbd0 of a disk"},
                    facts.nbd_client),
      check_qemu(facts),
      check_background_save(facts),
      check_criu(facts),
      check_soft_dirty(facts),
      check_namespaces(facts),
  };
}

}  // namespace ckpt
