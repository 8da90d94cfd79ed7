// SPDX-License-Identifier: Apache-2.0
#include "plugin/own_export.h"

#include <linux/magic.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/sysmacros.h>

#include <filesystem>
#include <fstream>

namespace ckpt {
namespace {

namespace fs = std::filesystem;

constexpr int kDepthMax = 8;  // devices upon devices
constexpr uint64_t kSectorBytes = 512;

std::string line_of(const std::string& path) {
  std::ifstream file(path);
  std::string line;
  std::getline(file, line);
  return line;
}

bool is_on_fuse(const std::string& path) {
  struct statfs status {};
  return statfs(path.c_str(), &status) == 0 && status.f_type == FUSE_SUPER_MAGIC;
}

}  // namespace

std::string describe_export(const Uuid& volume) { return "ckpt volume " + volume.to_string(); }

Result<> OwnExport::refuse(const std::string& path) const {
  struct stat status {};
  fs::path there = fs::path(path).lexically_normal();
  while (stat(there.c_str(), &status) != 0) {
    if (!there.has_relative_path()) {
      return {};
    }
    there = there.parent_path();
  }
  const std::string name = find(status.st_dev);
  return name.empty()
             ? Result<>()
             : Result<>(fail(ErrorKind::kInvalid,
                             path + " is on " + name +
                                 ", a network block device of just this disk's size. If it "
                                 "is an export of this server, the server would wait for "
                                 "itself: choose another file system (state=DIR, "
                                 "backup=embedded:DIR)"));
}

std::string OwnExport::find(dev_t device) const {
  const std::string folder = folder_of(device);
  return folder.empty() ? "" : find_in(folder, 0);
}

// A disk's folder in sysfs; of a partition, its disk's.
std::string OwnExport::folder_of(dev_t device) const {
  std::error_code error;
  const fs::path folder = fs::canonical(
      sys_ + "/dev/block/" + std::to_string(major(device)) + ":" + std::to_string(minor(device)),
      error);
  if (error) {
    return "";
  }
  return fs::exists(folder / "partition", error) ? folder.parent_path() : folder;
}

std::string OwnExport::find_in(const std::string& folder, int depth) const {
  const std::string name = fs::path(folder).filename();
  if (depth > kDepthMax) {
    return "";
  }
  if (name.starts_with("nbd")) {
    const std::string sectors = line_of(folder + "/size");
    return sectors == std::to_string(size_bytes_ / kSectorBytes) ? name : "";
  }
  if (name.starts_with("loop")) {
    return find_below_loop(folder, depth);
  }
  std::error_code error;
  for (const auto& slave : fs::directory_iterator(folder + "/slaves", error)) {
    const fs::path below = fs::canonical(slave.path(), error);
    if (auto found = error ? "" : find_in(below, depth + 1); !found.empty()) {
      return found;
    }
  }
  return "";
}

std::string OwnExport::find_below_loop(const std::string& folder, int depth) const {
  const std::string file = line_of(folder + "/loop/backing_file");
  struct stat status {};
  if (file.empty() || stat(file.c_str(), &status) != 0) {
    return "";
  }
  if (is_on_fuse(file) && static_cast<uint64_t>(status.st_size) == size_bytes_) {
    return fs::path(folder).filename().string() + " (" + file + ")";
  }
  const std::string below = folder_of(status.st_dev);
  return below.empty() ? "" : find_in(below, depth + 1);
}

}  // namespace ckpt
