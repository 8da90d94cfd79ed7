// SPDX-License-Identifier: Apache-2.0
#include "tools/mount.h"

#include <fcntl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <filesystem>
#include <optional>
#include <set>
#include <sstream>
#include <thread>

#include "common/clock.h"
#include "common/fd.h"
#include "tools/program.h"
#include "tools/text_file.h"

namespace ckpt {
namespace {

namespace fs = std::filesystem;

constexpr size_t kUsersMax = 10;
constexpr std::chrono::milliseconds kBusyLook{100};
constexpr std::chrono::seconds kBusyPatience{2};
constexpr std::chrono::seconds kMountPatience{60};

// Spaces and the like are written as \040.
std::string unescape(const std::string& text) {
  std::string plain;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '\\' && i + 3 < text.size()) {
      plain += static_cast<char>(std::strtol(text.substr(i + 1, 3).c_str(), nullptr, 8));
      i += 3;
    } else {
      plain += text[i];
    }
  }
  return plain;
}

// Those of the mount point and those of the file system, each once. "seclabel" is told, and not
// taken (mount(8)).
std::string join_options(const std::string& of_point, const std::string& of_system) {
  std::vector<std::string> all;
  std::istringstream words(of_point + "," + of_system);
  for (std::string word; std::getline(words, word, ',');) {
    if (!word.empty() && word != "seclabel" && std::ranges::find(all, word) == all.end()) {
      all.push_back(word);
    }
  }
  std::string joined;
  for (const std::string& word : all) {
    joined += (joined.empty() ? "" : ",") + word;
  }
  return joined;
}

std::optional<Mount> parse_mount(const std::string& line) {
  std::istringstream words(line);
  std::string number;
  std::string parent;
  std::string device;
  std::string of_point;
  std::string of_system;
  Mount mount;
  words >> number >> parent >> device >> mount.root >> mount.point >> of_point;
  for (std::string optional; words >> optional && optional != "-";) {
  }
  words >> mount.type >> mount.source >> of_system;
  const size_t colon = device.find(':');
  if (!words || colon == std::string::npos) {
    return std::nullopt;
  }
  mount.device = makedev(static_cast<unsigned>(std::strtoul(device.c_str(), nullptr, 10)),
                         static_cast<unsigned>(std::strtoul(&device[colon + 1], nullptr, 10)));
  mount.root = unescape(mount.root);
  mount.point = unescape(mount.point);
  mount.source = unescape(mount.source);
  mount.options = join_options(of_point, of_system);
  return mount;
}

bool is_number(const std::string& text) {
  return !text.empty() && std::ranges::all_of(text, [](unsigned char c) { return isdigit(c); });
}

// Of one process: what it has of the file system, by its links in /proc; empty: nothing.
class ProcessFiles {
 public:
  ProcessFiles(fs::path process, dev_t device) : process_(std::move(process)), device_(device) {}

  [[nodiscard]] std::string used() const {
    for (const char* link : {"cwd", "root", "exe"}) {
      if (is_on(process_ / link)) {
        return target(process_ / link);
      }
    }
    for (const char* folder : {"fd", "map_files"}) {
      if (auto found = used_in(process_ / folder); !found.empty()) {
        return found;
      }
    }
    return "";
  }

 private:
  [[nodiscard]] bool is_on(const fs::path& link) const {
    struct stat status {};
    return stat(link.c_str(), &status) == 0 && status.st_dev == device_;
  }
  [[nodiscard]] static std::string target(const fs::path& link) {
    std::error_code ignored;
    return fs::read_symlink(link, ignored).string();
  }
  [[nodiscard]] std::string used_in(const fs::path& folder) const {
    std::error_code ignored;
    for (const auto& entry : fs::directory_iterator(folder, ignored)) {
      if (is_on(entry.path())) {
        return target(entry.path());
      }
    }
    return "";
  }

  const fs::path process_;
  const dev_t device_;
};

std::string describe_process(const fs::path& process) {
  std::string name = content_of((process / "comm").string());
  name.erase(name.find_last_not_of('\n') + 1);
  return "process " + process.filename().string() + " (" + name + ")";
}

std::string namespace_of(const fs::path& process) {
  std::error_code ignored;
  return fs::read_symlink(process / "ns/mnt", ignored).string();
}

// Where else the file system is mounted, as a process sees it.
std::vector<std::string> mounts_elsewhere(const fs::path& process, const Mount& mount,
                                          bool is_our_namespace) {
  std::vector<std::string> found;
  for (const Mount& other : parse_mounts(content_of((process / "mountinfo").string()))) {
    if (other.device != mount.device || (is_our_namespace && other.point == mount.point)) {
      continue;
    }
    found.push_back(
        "the mount at " + other.point +
        (is_our_namespace ? "" : " in the mount namespace of " + describe_process(process)));
  }
  return found;
}

std::vector<fs::path> all_processes_in_proc() {
  std::vector<fs::path> all;
  std::error_code ignored;
  for (const auto& entry : fs::directory_iterator("/proc", ignored)) {
    if (is_number(entry.path().filename().string())) {
      all.push_back(entry.path());
    }
  }
  return all;
}

// Processes and mounts.
std::vector<std::string> all_users_of(const Mount& mount) {
  std::vector<std::string> users = users_of(mount);
  for (std::string& elsewhere : other_mounts_of(mount)) {
    users.push_back(std::move(elsewhere));
  }
  return users;
}

}  // namespace

std::vector<Mount> parse_mounts(std::string_view mountinfo) {
  std::vector<Mount> mounts;
  std::istringstream lines{std::string(mountinfo)};
  for (std::string line; std::getline(lines, line);) {
    if (auto mount = parse_mount(line)) {
      mounts.push_back(std::move(*mount));
    }
  }
  return mounts;
}

std::vector<Mount> all_mounts() { return parse_mounts(content_of("/proc/self/mountinfo")); }

Result<Mount> find_mount(const std::string& point) {
  std::error_code failed;
  const fs::path real = fs::canonical(point, failed);
  if (failed) {
    return fail_errno(failed.value(), point);
  }
  const std::vector<Mount> mounts = all_mounts();
  const auto found = std::find_if(mounts.rbegin(), mounts.rend(), [&real](const Mount& mount) {
    return mount.point == real.string();
  });
  if (found == mounts.rend()) {
    return fail(ErrorKind::kNotFound,
                point + ": no file system is mounted here; give the mount point itself");
  }
  return *found;
}

std::vector<std::string> users_of(const Mount& mount, const std::set<pid_t>& except) {
  std::vector<std::string> users;
  for (const fs::path& process : all_processes_in_proc()) {
    const auto pid = static_cast<pid_t>(std::strtol(process.filename().c_str(), nullptr, 10));
    const std::string used = except.contains(pid) ? "" : ProcessFiles(process, mount.device).used();
    if (!used.empty() && users.size() < kUsersMax) {
      users.push_back(describe_process(process) + " has " + used);
    }
  }
  return users;
}

std::vector<std::string> other_mounts_of(const Mount& mount) {
  std::vector<std::string> found;
  std::set<std::string> namespaces;
  const std::string ours = namespace_of("/proc/self");
  for (const fs::path& process : all_processes_in_proc()) {
    const std::string its = namespace_of(process);
    if (!its.empty() && namespaces.insert(its).second) {
      for (std::string& elsewhere : mounts_elsewhere(process, mount, its == ours)) {
        found.push_back(std::move(elsewhere));
      }
    }
  }
  return found;
}

Result<> sync_mount(const Mount& mount) {
  const UniqueFd fd(::open(mount.point.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!fd || ::syncfs(fd.get()) != 0) {
    return fail_errno(errno, "sync " + mount.point);
  }
  return {};
}

Result<> unmount(const Mount& mount) {
  const SteadyTime deadline = system_clock().steady() + kBusyPatience;
  while (::umount2(mount.point.c_str(), UMOUNT_NOFOLLOW) != 0) {
    const int number = errno;
    if (number == EBUSY && system_clock().steady() < deadline) {
      std::this_thread::sleep_for(kBusyLook);
      continue;
    }
    if (number != EBUSY) {
      return fail_errno(number, "unmount " + mount.point);
    }
    std::string text = "unmount " + mount.point + ": it is in use";
    for (const std::string& user : all_users_of(mount)) {
      text += "; " + user;
    }
    return fail(ErrorKind::kBusy, text);
  }
  // The kernel's cache lives as long as any mount of it does.
  if (const auto users = all_users_of(mount); !users.empty()) {
    const bool is_back = mount_again(mount).has_value();
    return fail(ErrorKind::kBusy, mount.source + " is used elsewhere, too: " + users.front() +
                                      ": end that first; " + mount.point +
                                      (is_back ? " is mounted again" : " is no longer mounted"));
  }
  return {};
}

Result<> mount_again(const Mount& mount) {
  const std::string program = find_program("mount", "/usr/sbin:/usr/bin:/sbin:/bin");
  auto said = output_of({program.empty() ? "mount" : program, "-t", mount.type, "-o", mount.options,
                         mount.source, mount.point},
                        kMountPatience);
  return said ? Result<>()
              : Result<>(within("mount " + mount.source + " at " + mount.point, said.error()));
}

}  // namespace ckpt
