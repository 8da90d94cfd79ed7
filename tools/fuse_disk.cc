// SPDX-License-Identifier: Apache-2.0
#include "tools/fuse_disk.h"

#include <fcntl.h>
#include <linux/magic.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <filesystem>
#include <thread>

#include "common/clock.h"
#include "common/fd.h"
#include "tools/program.h"
#include "tools/text_file.h"

namespace ckpt {
namespace {

namespace fs = std::filesystem;

constexpr const char* kFusePath = "/usr/sbin:/usr/bin:/sbin:/bin";
constexpr std::chrono::seconds kFusePatience{10};
constexpr std::chrono::milliseconds kFuseLook{20};

std::string backing_file(const std::string& device) {
  return first_line_of("/sys/block/" + device.substr(device.rfind('/') + 1) + "/loop/backing_file");
}

Result<std::string> find_needed(const std::string& name, const std::string& package) {
  std::string program = find_program(name, kFusePath);
  return program.empty()
             ? Result<std::string>(
                   fail(ErrorKind::kNotFound,
                        "this kernel has no NBD client (modprobe nbd), and " + name +
                            ", which does without, is not installed (package " + package + ")"))
             : Result<std::string>(std::move(program));
}

Result<std::string> losetup(std::vector<std::string> words) {
  CKPT_ASSIGN(std::string program, find_needed("losetup", "mount"));
  words.insert(words.begin(), std::move(program));
  auto said = output_of(words, kFusePatience);
  return said ? said : within("losetup", said.error());
}

// The file is the disk: nbdfuse has it.
bool is_served(const std::string& file) {
  struct statfs system {};
  struct stat status {};
  return ::statfs(file.c_str(), &system) == 0 && system.f_type == FUSE_SUPER_MAGIC &&
         ::stat(file.c_str(), &status) == 0 && status.st_size > 0;
}

std::string log_file(const std::string& file) { return file + ".log"; }

// The nbdfuse that serves it; 0: none is seen.
pid_t server_of(const std::string& file) {
  std::error_code ignored;
  for (const auto& entry : fs::directory_iterator("/proc", ignored)) {
    const std::string words = content_of(entry.path().string() + "/cmdline") + '\0';
    if (words.find('\0' + file + '\0') != std::string::npos &&
        first_line_of(entry.path().string() + "/comm") == "nbdfuse") {
      return static_cast<pid_t>(std::strtol(entry.path().filename().c_str(), nullptr, 10));
    }
  }
  return 0;
}

template <typename Condition>
bool comes_true(const Condition& condition) {
  const SteadyTime deadline = system_clock().steady() + kFusePatience;
  while (!condition()) {
    if (system_clock().steady() >= deadline) {
      return false;
    }
    std::this_thread::sleep_for(kFuseLook);
  }
  return true;
}

// What somebody has put there stays: nbdfuse covers any file.
void remove_if_empty(const std::string& path) {
  struct stat status {};
  if (::lstat(path.c_str(), &status) == 0 && S_ISREG(status.st_mode) && status.st_size == 0) {
    ::unlink(path.c_str());
  }
}

// One whose server is gone is still a mount. EINVAL: it is none.
Result<> stop_serving(const std::string& file) {
  const pid_t server = server_of(file);
  if (::umount2(file.c_str(), UMOUNT_NOFOLLOW) != 0 && errno != EINVAL && errno != ENOENT) {
    return fail_errno(errno, "unmount " + file);
  }
  if (server != 0 && !comes_true([&] { return server_of(file) != server; })) {
    return fail(ErrorKind::kTimeout, "nbdfuse, process " + std::to_string(server) + ", for " +
                                         file + " has not ended after 10 s");
  }
  remove_if_empty(file);
  remove_if_empty(log_file(file));
  return {};
}

// It runs on when this process has ended.
Result<> serve(const AttachedDisk& disk) {
  CKPT_ASSIGN(const std::string program, find_needed("nbdfuse", "libnbd-bin, with fuse3"));
  CKPT_TRY(stop_serving(disk.file));
  const UniqueFd made(::open(disk.file.c_str(), O_WRONLY | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600));
  if (!made) {
    return fail_errno(errno, "make " + disk.file);
  }
  CKPT_TRY(start_detached({program, disk.file, disk.uri}, log_file(disk.file)));
  if (comes_true([&] { return is_served(disk.file); })) {
    return {};
  }
  const std::string said = first_line_of(log_file(disk.file));
  (void)stop_serving(disk.file);
  return fail(ErrorKind::kIo, "nbdfuse does not serve " + disk.uri + " as " + disk.file +
                                  (said.empty() ? "" : ": " + said));
}

}  // namespace

Result<std::string> free_loop_device() {
  CKPT_TRY(find_needed("nbdfuse", "libnbd-bin, with fuse3"));
  CKPT_ASSIGN(std::string device, losetup({"--find"}));
  device.erase(device.find_last_not_of('\n') + 1);
  return device;
}

bool is_taken(const AttachedDisk& disk) {
  const std::string there = disk.file.empty() ? "" : backing_file(disk.device);
  return !there.empty() && there != disk.file;
}

Result<> attach_by_fuse(const AttachedDisk& disk) {
  const std::string there = backing_file(disk.device);
  if (is_taken(disk)) {
    return fail(ErrorKind::kBusy, disk.device + " is attached to " + there + ": losetup -d " +
                                      disk.device + ", if that is not needed");
  }
  if (!there.empty() && is_served(disk.file)) {
    return {};
  }
  if (!there.empty()) {
    CKPT_TRY(detach_by_fuse(disk));
  }
  CKPT_TRY(serve(disk));
  const auto attached =
      losetup({"--sector-size", std::to_string(disk.block_bytes), disk.device, disk.file});
  if (!attached) {
    (void)stop_serving(disk.file);
    return Unexpected(attached.error());
  }
  return {};
}

Result<> detach_by_fuse(const AttachedDisk& disk) {
  if (backing_file(disk.device) == disk.file) {
    CKPT_TRY(losetup({"--detach", disk.device}));
    if (!comes_true([&] { return backing_file(disk.device).empty(); })) {
      return fail(ErrorKind::kTimeout, disk.device + " is still attached after 10 s");
    }
  }
  return stop_serving(disk.file);
}

}  // namespace ckpt
