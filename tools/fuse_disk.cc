// SPDX-License-Identifier: Apache-2.0
#include "tools/fuse_disk.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <filesystem>
#include <functional>
#include <thread>

#include "common/aligned_buffer.h"
#include "common/clock.h"
#include "common/fd.h"
#include "plugin/listeners.h"
#include "tools/attached_disk.h"
#include "tools/program.h"
#include "tools/text_file.h"

namespace ckpt {
namespace {

namespace fs = std::filesystem;

constexpr const char* kFuseFolder = "/run/ckpt-tool";
constexpr std::chrono::seconds kServePatience{30};
constexpr std::chrono::seconds kLoopPatience{30};
constexpr std::chrono::seconds kReleasePatience{10};
constexpr std::chrono::milliseconds kReleaseLook{20};
constexpr size_t kProbeBytes = 4096;

std::string loop_folder(const std::string& device) {
  return "/sys/block/" + device.substr(device.rfind('/') + 1) + "/loop";
}

// Past the page cache: whether the server is there.
bool is_readable(const std::string& path) {
  const UniqueFd fd(::open(path.c_str(), O_RDONLY | O_DIRECT | O_CLOEXEC));
  const AlignedBuffer buffer(kProbeBytes);
  return fd && ::pread(fd.get(), buffer.data(), kProbeBytes, 0) > 0;
}

// A link in the last place is not followed: what is mounted on it may not answer.
fs::path real_path(const fs::path& path) {
  std::error_code unknown;
  const fs::path folder = fs::canonical(path.parent_path(), unknown);
  return unknown ? path : folder / path.filename();
}

// What the words after the file say (nbdfuse(1), MODES). Empty: it runs its server itself.
std::string uri_of_mode(const std::vector<std::string>& mode, const fs::path& working_directory) {
  if (mode.size() == 2 && mode[0] == "--unix") {
    return uri_of_path((working_directory / mode[1]).lexically_normal().string());
  }
  if (mode.size() == 3 && mode[0] == "--tcp") {
    const bool is_ipv6 = mode[1].find(':') != std::string::npos;
    return "nbd://" + (is_ipv6 ? "[" + mode[1] + "]" : mode[1]) + ":" + mode[2];
  }
  return mode.size() == 1 && mode[0].find("://") != std::string::npos ? mode[0] : "";
}

// A dead one whose parent has not asked yet has no words any more.
bool has_ended(pid_t pid) { return words_of_process("/proc/" + std::to_string(pid)).empty(); }

bool wait_until(const std::function<bool()>& condition) {
  const SteadyTime deadline = system_clock().steady() + kReleasePatience;
  while (!condition()) {
    if (system_clock().steady() >= deadline) {
      return false;
    }
    std::this_thread::sleep_for(kReleaseLook);
  }
  return true;
}

bool is_served(const std::string& file) {
  struct stat status {};
  return find_fuse_mount(file) && ::stat(file.c_str(), &status) == 0 && status.st_size > 0;
}

bool is_ours(const std::string& file) { return fs::path(file).parent_path() == kFuseFolder; }

// What nbdfuse is mounted on. Its content does not matter.
Result<> make_file(const std::string& file) {
  if (is_ours(file) && ::mkdir(kFuseFolder, S_IRWXU) != 0 && errno != EEXIST) {
    return fail_errno(errno, std::string("make ") + kFuseFolder);
  }
  const UniqueFd fd(::open(file.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK,
                           S_IRUSR | S_IWUSR));
  return fd ? Result<>() : Result<>(fail_errno(errno, "make " + file));
}

Result<> serve_file(const AttachedDisk& disk, const FusePrograms& programs) {
  CKPT_TRY(make_file(disk.file));
  const auto started = start_detached(
      {programs.nbdfuse, disk.file, disk.uri}, [&disk] { return is_served(disk.file); },
      kServePatience);
  return started ? Result<>()
                 : Result<>(within("nbdfuse " + disk.file + " " + disk.uri, started.error()));
}

std::string users_of_file(const std::string& file) {
  const auto mount = find_fuse_mount(file);
  std::string line;
  for (const std::string& user : mount ? users_of(*mount) : std::vector<std::string>()) {
    line += (line.empty() ? "" : "; ") + user;
  }
  return line;
}

// A loop device lets go of its file a moment after it is gone.
Result<> unmount_file(const std::string& file, const FusePrograms& programs) {
  Error why;
  const bool is_down = wait_until([&] {
    const auto said = output_of({programs.fusermount, "-u", file}, kLoopPatience);
    why = said ? Error() : said.error();
    return !find_fuse_mount(file);
  });
  const std::string users = is_down ? "" : users_of_file(file);
  return is_down
             ? Result<>()
             : Result<>(fail(ErrorKind::kBusy, why.context + (users.empty() ? "" : "; ") + users));
}

// Its connection to the server lives as long as the process does.
Result<> stop_serving(const std::string& file, const FusePrograms& programs) {
  const auto server = find_fuse_server(file);
  CKPT_TRY(unmount_file(file, programs));
  if (server && !wait_until([&server] { return has_ended(server->pid); })) {
    return fail(ErrorKind::kTimeout,
                "process " + std::to_string(server->pid) + " (nbdfuse) still serves " + file +
                    ", which is no longer mounted here, after 10 s: it may be in the mount "
                    "namespace of another process; end that first");
  }
  if (is_ours(file)) {
    ::unlink(file.c_str());
  }
  return {};
}

Result<> remove_loop(const std::string& device, const FusePrograms& programs) {
  if (const auto said = output_of({programs.losetup, "--detach", device}, kLoopPatience); !said) {
    return within("losetup --detach " + device, said.error());
  }
  return wait_until([&device] { return file_below(device).empty(); })
             ? Result<>()
             : Result<>(fail(ErrorKind::kTimeout,
                             device + " is still there after 10 s: something has it open"));
}

// As the device that it was, or else as another: its number may have been taken meanwhile.
Result<> make_loop(AttachedDisk& disk, const FusePrograms& programs) {
  const std::vector<std::string> words{programs.losetup, "--partscan", "--sector-size",
                                       std::to_string(disk.block_bytes)};
  auto same = words;
  same.insert(same.end(), {disk.device, disk.file});
  if (!disk.device.empty() && file_below(disk.device).empty() && output_of(same, kLoopPatience)) {
    return {};
  }
  auto any = words;
  any.insert(any.end(), {"--find", "--show", disk.file});
  const auto said = output_of(any, kLoopPatience);
  if (!said) {
    return within("losetup " + disk.file, said.error());
  }
  disk.device = said->substr(0, said->find('\n'));
  return {};
}

// What is there can stay: all of it answers.
bool is_alive(const std::string& file) {
  return is_served(file) && is_readable(file) && std::ranges::all_of(loops_upon(file), is_readable);
}

}  // namespace

Result<FusePrograms> find_fuse_programs(const std::string& path) {
  const FusePrograms found{find_program("nbdfuse", path), find_program("fusermount3", path),
                           find_program("losetup", path)};
  std::string missing;
  const auto look = [&missing](bool is_there, const char* what) {
    missing += is_there ? "" : (missing.empty() ? "" : ", and ") + std::string(what);
  };
  look(!found.nbdfuse.empty(), "nbdfuse is not installed (package libnbd-bin, or nbdfuse)");
  look(!found.fusermount.empty(), "fusermount3 is not installed (package fuse3)");
  look(!found.losetup.empty(), "losetup is not installed (package mount)");
  look(::access("/dev/fuse", F_OK) == 0, "there is no /dev/fuse (modprobe fuse)");
  look(::access("/dev/loop-control", F_OK) == 0, "there is no /dev/loop-control (modprobe loop)");
  return missing.empty() ? Result<FusePrograms>(found)
                         : Result<FusePrograms>(fail(ErrorKind::kNotFound, missing));
}

std::string fuse_file_of(const Uuid& volume) {
  return std::string(kFuseFolder) + "/" + volume.to_string();
}

std::optional<FuseServer> parse_fuse_server(const std::vector<std::string>& words,
                                            const std::string& working_directory,
                                            const std::string& file) {
  if (words.empty() || !fs::path(words.front()).filename().string().ends_with("nbdfuse")) {
    return std::nullopt;
  }
  const fs::path base(working_directory);
  const auto place = std::find_if(words.begin() + 1, words.end(), [&](const std::string& word) {
    return real_path((base / word).lexically_normal()) == file;
  });
  if (place == words.end()) {
    return std::nullopt;
  }
  return FuseServer{0, uri_of_mode({place + 1, words.end()}, base)};
}

std::optional<FuseServer> find_fuse_server(const std::string& file) {
  if (!find_fuse_mount(file)) {
    return std::nullopt;
  }
  std::error_code ignored;
  for (const auto& entry : fs::directory_iterator("/proc", ignored)) {
    const auto pid = static_cast<pid_t>(std::atoi(entry.path().filename().c_str()));
    std::error_code unknown;
    const fs::path folder = pid > 0 ? fs::read_symlink(entry.path() / "cwd", unknown) : fs::path();
    if (auto server = pid > 0
                          ? parse_fuse_server(words_of_process(entry.path().string()), folder, file)
                          : std::nullopt) {
      server->pid = pid;
      return server;
    }
  }
  return std::nullopt;
}

std::optional<Mount> find_fuse_mount(const std::string& file) {
  const std::vector<Mount> mounts = all_mounts();
  const auto found = std::find_if(mounts.rbegin(), mounts.rend(),
                                  [&file](const Mount& mount) { return mount.point == file; });
  return found != mounts.rend() && found->type.starts_with("fuse") ? std::optional(*found)
                                                                   : std::nullopt;
}

std::vector<std::string> fuse_files() {
  std::vector<std::string> files;
  for (const Mount& mount : all_mounts()) {
    if (mount.type.starts_with("fuse") &&
        (is_ours(mount.point) || !loops_upon(mount.point).empty())) {
      files.push_back(mount.point);
    }
  }
  return files;
}

std::string file_below(const std::string& device) {
  return first_line_of(loop_folder(device) + "/backing_file");
}

std::vector<std::string> loops_upon(const std::string& file) {
  std::vector<std::string> loops;
  std::error_code ignored;
  for (const auto& entry : fs::directory_iterator("/sys/block", ignored)) {
    std::string device = "/dev/" + entry.path().filename().string();
    if (file_below(device) == file) {
      loops.push_back(std::move(device));
    }
  }
  return loops;
}

Result<> check_fuse_disk(const std::string& device) {
  const std::string file = file_below(device);
  if (!find_fuse_server(file)) {
    return fail(ErrorKind::kInvalid, device + " is made of " + file +
                                         ", which is not served by nbdfuse in place of just that "
                                         "file (nbdfuse FILE URI): it could not be served again");
  }
  const bool is_whole = first_line_of(loop_folder(device) + "/offset") == "0" &&
                        first_line_of(loop_folder(device) + "/sizelimit") == "0";
  return is_whole ? Result<>()
                  : Result<>(fail(ErrorKind::kInvalid,
                                  device + " is made of a part of " + file +
                                      " only: make one of all of it (losetup --partscan)"));
}

Result<> check_fuse_answers(const std::string& device) {
  const std::string file = file_below(device);
  // Not stat(2): the kernel remembers its answer after the server is gone.
  if (!find_fuse_mount(file) || is_readable(file)) {
    return {};
  }
  return fail(ErrorKind::kUnreachable,
              device + " is made of " + file +
                  ", which nbdfuse does not serve any more, as when its server has ended: unmount "
                  "it, losetup --detach " +
                  device + ", and fusermount3 -u " + file);
}

Result<> check_only_user(const AttachedDisk& disk) {
  if (const auto loops = loops_upon(disk.file); loops.size() > 1) {
    const std::string& other = loops.front() == disk.device ? loops.back() : loops.front();
    return fail(ErrorKind::kBusy,
                other + " is made of " + disk.file + ", too: losetup --detach " + other);
  }
  const std::string users = users_of_file(disk.file);
  return users.empty() ? Result<>()
                       : Result<>(fail(ErrorKind::kBusy, disk.file + " is in use: " + users));
}

Result<> attach_fuse(AttachedDisk& disk) {
  CKPT_ASSIGN(const FusePrograms programs, find_fuse_programs());
  if (!is_alive(disk.file)) {
    CKPT_TRY(detach_fuse(disk));  // what is left of an earlier server's
    CKPT_TRY(serve_file(disk, programs));
  }
  if (const auto loops = loops_upon(disk.file); !loops.empty()) {
    disk.device = loops.front();
    return {};
  }
  auto made = make_loop(disk, programs);
  if (!made) {
    (void)stop_serving(disk.file, programs);
  }
  return made;
}

Result<> detach_fuse(const AttachedDisk& disk) {
  CKPT_ASSIGN(const FusePrograms programs, find_fuse_programs());
  for (const std::string& loop : loops_upon(disk.file)) {
    CKPT_TRY(check_unused(loop));
    CKPT_TRY(remove_loop(loop, programs));
  }
  return find_fuse_mount(disk.file) ? stop_serving(disk.file, programs) : Result<>();
}

}  // namespace ckpt
