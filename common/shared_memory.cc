// SPDX-License-Identifier: Apache-2.0
#include "common/shared_memory.h"

#include <fcntl.h>
#include <linux/magic.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/vfs.h>

#include <cerrno>
#include <cstdlib>

namespace ckpt {
namespace {

constexpr uint64_t kPageBytes = 4096;

class MappedFile : public SharedMemory {
 public:
  MappedFile(UniqueFd fd, void* memory, uint64_t bytes, std::string path)
      : fd_(std::move(fd)),
        memory_(static_cast<std::byte*>(memory), bytes),
        path_(std::move(path)) {}
  ~MappedFile() override { munmap(memory_.data(), memory_.size()); }

  ByteSpan bytes() override { return memory_; }
  Result<> allocate(ByteRange range) override;
  Result<> allocate_private(ByteRange range) override;
  Result<std::optional<ByteRange>> next_allocated(uint64_t offset) override;

 private:
  UniqueFd fd_;
  ByteSpan memory_;
  std::string path_;
};

ByteRange whole_pages(ByteRange range, uint64_t limit) {
  const uint64_t begin = range.offset / kPageBytes * kPageBytes;
  const uint64_t end = (range.end() + kPageBytes - 1) / kPageBytes * kPageBytes;
  return {begin, (end < limit ? end : limit) - begin};
}

Result<> MappedFile::allocate(ByteRange range) {
  const ByteRange pages = whole_pages(range, memory_.size());
  int status = 0;
  do {
    // A signal is no lack of space: the caller would replace the pages by private ones.
    status =
        fallocate(fd_.get(), 0, static_cast<off_t>(pages.offset), static_cast<off_t>(pages.length));
  } while (status != 0 && errno == EINTR);
  return status == 0 ? Result<>() : Result<>(fail_errno(errno, "fallocate " + path_));
}

Result<> MappedFile::allocate_private(ByteRange range) {
  const ByteRange pages = whole_pages(range, memory_.size());
  void* const memory = mmap(memory_.data() + pages.offset, pages.length, PROT_READ | PROT_WRITE,
                            MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
  return memory != MAP_FAILED ? Result<>() : Result<>(fail_errno(errno, "mmap"));
}

Result<std::optional<ByteRange>> MappedFile::next_allocated(uint64_t offset) {
  const off_t data = lseek(fd_.get(), static_cast<off_t>(offset), SEEK_DATA);
  if (data < 0 && errno == ENXIO) {
    return std::optional<ByteRange>();
  }
  const off_t hole = data < 0 ? data : lseek(fd_.get(), data, SEEK_HOLE);
  if (hole < 0) {
    return fail_errno(errno, "lseek " + path_);
  }
  const auto begin = static_cast<uint64_t>(data);
  return std::optional(ByteRange{begin, static_cast<uint64_t>(hole) - begin});
}

Result<std::unique_ptr<SharedMemory>> map(UniqueFd fd, uint64_t bytes, const std::string& path) {
  void* const memory =
      mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, fd.get(), 0);
  if (memory == MAP_FAILED) {
    return fail_errno(errno, "mmap " + path);
  }
  return std::unique_ptr<SharedMemory>(
      std::make_unique<MappedFile>(std::move(fd), memory, bytes, path));
}

// A private directory on a tmpfs, or nothing.
UniqueFd open_private_directory(const std::string& path) {
  UniqueFd fd(::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW));
  struct statfs system {};
  struct stat status {};
  const bool usable = fd && fstatfs(fd.get(), &system) == 0 && system.f_type == TMPFS_MAGIC &&
                      fstat(fd.get(), &status) == 0 && status.st_uid == geteuid() &&
                      faccessat(fd.get(), ".", W_OK, AT_EACCESS) == 0;
  return usable ? std::move(fd) : UniqueFd();
}

}  // namespace

Result<std::unique_ptr<TmpfsMemoryStore>> TmpfsMemoryStore::open() {
  std::vector<std::string> candidates;
  if (const char* runtime = std::getenv("XDG_RUNTIME_DIR"); runtime != nullptr && *runtime == '/') {
    candidates.push_back(std::string(runtime) + "/ckpt");
  }
  candidates.emplace_back("/run/ckpt");
  candidates.push_back("/dev/shm/ckpt-" + std::to_string(geteuid()));
  std::vector<Place> places;
  for (const std::string& path : candidates) {
    if (places.empty()) {
      mkdir(path.c_str(), 0700);
    }
    if (UniqueFd fd = open_private_directory(path); fd) {
      places.push_back({std::move(fd), path});
    }
  }
  if (!places.empty()) {
    return std::unique_ptr<TmpfsMemoryStore>(new TmpfsMemoryStore(std::move(places)));
  }
  return fail(ErrorKind::kNotFound,
              "no tmpfs for the written maps: neither $XDG_RUNTIME_DIR nor /run/ckpt nor /dev/shm "
              "is one that this user can write");
}

Result<std::unique_ptr<SharedMemory>> TmpfsMemoryStore::create(const std::string& name,
                                                               uint64_t bytes) {
  const std::string path = places_.front().path + "/" + name;
  UniqueFd fd(openat(places_.front().fd.get(), name.c_str(),
                     O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600));
  if (!fd || ftruncate(fd.get(), static_cast<off_t>(bytes)) != 0) {
    return fail_errno(errno, "create " + path);
  }
  return map(std::move(fd), bytes, path);
}

Result<std::unique_ptr<SharedMemory>> TmpfsMemoryStore::open(const std::string& name,
                                                             uint64_t bytes) {
  for (const Place& place : places_) {
    const std::string path = place.path + "/" + name;
    UniqueFd fd(openat(place.fd.get(), name.c_str(), O_RDWR | O_CLOEXEC | O_NOFOLLOW));
    struct stat status {};
    if (!fd && errno == ENOENT) {
      continue;
    }
    if (!fd || fstat(fd.get(), &status) != 0) {
      return fail_errno(errno, "open " + path);
    }
    if (static_cast<uint64_t>(status.st_size) != bytes) {
      return fail(ErrorKind::kCorrupt, path + ": not of the right size");
    }
    return map(std::move(fd), bytes, path);
  }
  return fail_errno(ENOENT, "open " + path() + "/" + name);
}

Result<> TmpfsMemoryStore::remove(const std::string& name) {
  for (const Place& place : places_) {
    if (unlinkat(place.fd.get(), name.c_str(), 0) == 0) {
      return {};
    }
    if (errno != ENOENT) {
      return fail_errno(errno, "unlink " + place.path + "/" + name);
    }
  }
  return fail_errno(ENOENT, "unlink " + path() + "/" + name);
}

}  // namespace ckpt
