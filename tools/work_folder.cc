// SPDX-License-Identifier: Apache-2.0
#include "tools/work_folder.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <filesystem>

namespace ckpt {
namespace {

namespace fs = std::filesystem;

// Nothing: somebody has it, or it is gone.
UniqueFd lock_folder(const std::string& path) {
  UniqueFd fd(::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
  if (fd && ::flock(fd.get(), LOCK_EX | LOCK_NB) != 0) {
    fd.reset();
  }
  return fd;
}

void remove_abandoned(const std::string& base, const std::string& kind) {
  std::error_code ignored;
  for (const auto& entry : fs::directory_iterator(base, ignored)) {
    const std::string name = entry.path().filename().string();
    if (name.starts_with(kind + ".") && name.size() == kind.size() + sizeof("XXXXXX")) {
      if (const UniqueFd lock = lock_folder(entry.path().string()); lock) {
        fs::remove_all(entry.path(), ignored);
      }
    }
  }
}

}  // namespace

std::string short_base() {
  const char* const base = std::getenv("TMPDIR");
  return base == nullptr || *base == 0 ? "/tmp" : base;
}

Result<WorkFolder> WorkFolder::make(const std::string& base, const std::string& kind) {
  remove_abandoned(base, kind);
  for (;;) {
    std::string path = base + "/" + kind + ".XXXXXX";
    if (::mkdtemp(path.data()) == nullptr) {
      return fail_errno(errno, "make " + path);
    }
    // Between the two another command may have taken it for abandoned.
    UniqueFd lock = lock_folder(path);
    if (lock && ::access(path.c_str(), F_OK) == 0) {
      return WorkFolder(std::move(path), std::move(lock));
    }
  }
}

WorkFolder::WorkFolder(WorkFolder&& other) noexcept
    : path_(std::exchange(other.path_, "")), lock_(std::move(other.lock_)) {}

WorkFolder::~WorkFolder() {
  std::error_code ignored;
  if (!path_.empty()) {
    fs::remove_all(path_, ignored);
  }
}

std::string WorkFolder::keep_as(const std::string& name) {
  const std::string path = std::exchange(path_, "");
  const std::string wanted = fs::path(path).parent_path().string() + "/" + name;
  // rename(2) would replace an empty folder.
  return ::renameat2(AT_FDCWD, path.c_str(), AT_FDCWD, wanted.c_str(), RENAME_NOREPLACE) == 0
             ? wanted
             : path;
}

}  // namespace ckpt
