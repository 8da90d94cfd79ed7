// SPDX-License-Identifier: Apache-2.0
#include "common/posix_file.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/sysmacros.h>

#include <algorithm>
#include <array>
#include <cerrno>

#include "common/aligned_buffer.h"
#include "common/device_stamp.h"

// Its headers define BLOCK_SIZE and clash with nothing else only when they come last.
#include <linux/falloc.h>
#include <linux/fs.h>

namespace ckpt {
namespace {

std::chrono::nanoseconds to_time(const statx_timestamp& stamp) {
  return std::chrono::seconds(stamp.tv_sec) + std::chrono::nanoseconds(stamp.tv_nsec);
}

// The file system (or device) has no such operation: there is another way.
bool unsupported(int number) {
  return number == EOPNOTSUPP || number == ENOSYS || number == EINVAL || number == ENODEV;
}

int fallocate_whole(int fd, int mode, ByteRange range) {
  int status = 0;
  do {
    status =
        fallocate(fd, mode, static_cast<off_t>(range.offset), static_cast<off_t>(range.length));
  } while (status != 0 && errno == EINTR);
  return status == 0 ? 0 : errno;
}

}  // namespace

Result<std::unique_ptr<PosixFile>> PosixFile::open(const std::string& path, int flags,
                                                   RingUse ring) {
  UniqueFd fd(::open(path.c_str(), flags | O_CLOEXEC, 0600));
  if (!fd) {
    return fail_errno(errno, "open " + path);
  }
  return std::make_unique<PosixFile>(std::move(fd), path, ring);
}

Unexpected PosixFile::failed(int number, const char* act) const {
  return fail_errno(number, std::string(act) + " " + path_);
}

Result<> PosixFile::transfer(TransferKind kind, std::span<const Transfer> transfers, bool ring) {
  Result<> outcome;
  if (ring) {
    outcome = uring_transfer(fd_.get(), kind, transfers);
  }
  for (size_t i = 0; i < transfers.size() && !ring && outcome; ++i) {
    outcome = plain_transfer(fd_.get(), kind, transfers[i]);
  }
  return outcome ? Result<>() : Result<>(within(path_, outcome.error()));
}

Result<> PosixFile::read(uint64_t offset, ByteSpan buffer) {
  const Transfer one{offset, buffer};
  return transfer(TransferKind::kRead, std::span(&one, 1), false);
}

Result<> PosixFile::write(uint64_t offset, ConstByteSpan buffer) {
  // A Transfer's buffer is writable for reads; a write only reads it.
  const Transfer one{offset, {const_cast<std::byte*>(buffer.data()), buffer.size()}};
  return transfer(TransferKind::kWrite, std::span(&one, 1), ring_.single_writes);
}

Result<> PosixFile::read_many(std::span<const Transfer> transfers) {
  return transfer(TransferKind::kRead, transfers, ring_.reads && transfers.size() > 1);
}

Result<> PosixFile::write_many(std::span<const Transfer> transfers) {
  return transfer(TransferKind::kWrite, transfers, ring_.writes);
}

Result<> PosixFile::sync() {
  const uint64_t ticket = ++syncs_asked_;
  // One call at a time, for all who asked before it began: of two calls at once the kernel would
  // tell only one of a failure.
  const MutexLock lock(sync_mutex_);
  if (!sync_failed_ && syncs_done_ < ticket) {
    const uint64_t covered = syncs_asked_.load();
    if (fdatasync(fd_.get()) == 0) {
      syncs_done_ = covered;
    } else {
      // After a failed fsync the kernel may call lost pages clean: a second try would lie.
      sync_failed_ = failed(errno, "fdatasync").error();
    }
  }
  return sync_failed_ ? Result<>(Unexpected(*sync_failed_)) : Result<>();
}

void PosixFile::write_out(ByteRange range) {
  if (range.length == 0) {
    return;  // to the kernel it would mean: up to the end
  }
  // What could not be begun is done by let_go() or sync().
  sync_file_range(fd_.get(), static_cast<off_t>(range.offset), static_cast<off_t>(range.length),
                  SYNC_FILE_RANGE_WRITE);
}

Result<> PosixFile::let_go(ByteRange range) {
  if (range.length == 0) {
    return {};
  }
  const auto offset = static_cast<off_t>(range.offset);
  const auto length = static_cast<off_t>(range.length);
  constexpr unsigned kAll =
      SYNC_FILE_RANGE_WAIT_BEFORE | SYNC_FILE_RANGE_WRITE | SYNC_FILE_RANGE_WAIT_AFTER;
  if (sync_file_range(fd_.get(), offset, length, kAll) != 0 && errno != EINVAL && errno != ESPIPE) {
    const MutexLock lock(sync_mutex_);
    // The kernel tells of it once: a sync would not hear of it any more.
    sync_failed_ = failed(errno, "sync_file_range").error();
    return Unexpected(*sync_failed_);
  }
  posix_fadvise(fd_.get(), offset, length, POSIX_FADV_DONTNEED);
  return {};
}

Result<> PosixFile::allocate(ByteRange range) {
  const int number = fallocate_whole(fd_.get(), FALLOC_FL_KEEP_SIZE, range);
  return number == 0 || unsupported(number) ? Result<>() : Result<>(failed(number, "fallocate"));
}

Result<> PosixFile::zero(ByteRange range, bool punch) {
  if (range.length == 0) {
    return {};
  }
  const int mode = punch ? FALLOC_FL_PUNCH_HOLE : FALLOC_FL_ZERO_RANGE;
  const int number = fallocate_whole(fd_.get(), mode | FALLOC_FL_KEEP_SIZE, range);
  if (number != 0 && unsupported(number)) {
    return write_zeroes(range);
  }
  return number == 0 ? Result<>() : Result<>(failed(number, "fallocate"));
}

Result<> PosixFile::give_back(ByteRange range) {
  const int number = fallocate_whole(fd_.get(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, range);
  return number == 0 || unsupported(number) ? Result<>() : Result<>(failed(number, "fallocate"));
}

Result<> PosixFile::write_zeroes(ByteRange range) {
  alignas(kBufferAlignment) static const std::array<std::byte, 65536> zeroes{};
  for (uint64_t done = 0; done < range.length;) {
    const uint64_t length = std::min<uint64_t>(zeroes.size(), range.length - done);
    CKPT_TRY(write(range.offset + done, std::span(zeroes).first(length)));
    done += length;
  }
  return {};
}

Result<> PosixFile::resize(uint64_t size_bytes) {
  return ftruncate(fd_.get(), static_cast<off_t>(size_bytes)) == 0
             ? Result<>()
             : Result<>(failed(errno, "ftruncate"));
}

Result<uint64_t> PosixFile::size() {
  struct stat status {};
  if (fstat(fd_.get(), &status) != 0) {
    return failed(errno, "fstat");
  }
  auto bytes = static_cast<uint64_t>(status.st_size);
  if (S_ISBLK(status.st_mode) && ioctl(fd_.get(), BLKGETSIZE64, &bytes) != 0) {
    return failed(errno, "BLKGETSIZE64");
  }
  return bytes;
}

Result<std::optional<ByteRange>> PosixFile::next_data(uint64_t offset) {
  CKPT_ASSIGN(const uint64_t size_bytes, size());
  if (offset >= size_bytes) {
    return std::optional<ByteRange>();
  }
  const off_t data = lseek(fd_.get(), static_cast<off_t>(offset), SEEK_DATA);
  if (data < 0 && errno == ENXIO) {
    return std::optional<ByteRange>();
  }
  if (data < 0 && unsupported(errno)) {
    return std::optional(ByteRange{offset, size_bytes - offset});
  }
  const off_t hole = data < 0 ? data : lseek(fd_.get(), data, SEEK_HOLE);
  if (hole < 0) {
    return failed(errno, "lseek");
  }
  const auto begin = static_cast<uint64_t>(data);
  if (begin >= size_bytes) {
    return std::optional<ByteRange>();
  }
  return std::optional(ByteRange{begin, std::min(static_cast<uint64_t>(hole), size_bytes) - begin});
}

Result<FileStamp> PosixFile::stamp() {
  struct statx status {};
  if (statx(fd_.get(), "", AT_EMPTY_PATH, STATX_BASIC_STATS | STATX_BTIME, &status) != 0) {
    return failed(errno, "statx");
  }
  CKPT_ASSIGN(const uint64_t size_bytes, size());
  if (S_ISBLK(status.stx_mode)) {
    const dev_t device = makedev(status.stx_rdev_major, status.stx_rdev_minor);
    return stamp_of_device(device, size_bytes, system_clock().wall());
  }
  FileStamp stamp;
  stamp.device = makedev(status.stx_dev_major, status.stx_dev_minor);
  stamp.inode = status.stx_ino;
  stamp.birth = (status.stx_mask & STATX_BTIME) != 0 ? to_time(status.stx_btime) : WallTime{};
  stamp.modified = to_time(status.stx_mtime);
  stamp.changed = to_time(status.stx_ctime);
  stamp.size_bytes = size_bytes;
  return stamp;
}

std::string directory_of(const std::string& path) {
  const size_t slash = path.rfind('/');
  return slash == std::string::npos ? "." : path.substr(0, slash == 0 ? 1 : slash);
}

namespace {

constexpr int kToList = O_RDONLY | O_DIRECTORY | O_CLOEXEC;

bool is_on_another_device(int directory, int made) {
  struct stat a {};
  struct stat b {};
  return fstat(directory, &a) == 0 && fstat(made, &b) == 0 && a.st_dev != b.st_dev;
}

// Of the directory of what was made there (perhaps long ago), which was opened, or could not be.
// One that may be written to and not read is synced with all of its file system. Nobody has just
// made what another file system is mounted on.
Result<> sync_entries(int opened, int made, const std::string& path) {
  const UniqueFd directory(opened);
  const bool synced =
      directory ? is_on_another_device(directory.get(), made) || fsync(directory.get()) == 0
                : errno == EACCES && syncfs(made) == 0;
  return synced ? Result<>() : Result<>(fail_errno(errno, "sync the directory of " + path));
}

// A file without a name, or, where there is no such thing, with it.
UniqueFd open_new(const std::string& path, bool& is_named) {
  UniqueFd made(open(directory_of(path).c_str(), O_TMPFILE | O_RDWR | O_CLOEXEC, 0600));
  is_named = !made && (errno == EOPNOTSUPP || errno == EISDIR || errno == ENOENT);
  return is_named ? UniqueFd(open(path.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600))
                  : std::move(made);
}

}  // namespace

Result<std::unique_ptr<PosixDirectory>> PosixDirectory::open(const std::string& path, bool create,
                                                             RingUse ring) {
  if (create && mkdir(path.c_str(), 0700) != 0 && errno != EEXIST) {
    return fail_errno(errno, "mkdir " + path);
  }
  UniqueFd fd(::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!fd) {
    return fail_errno(errno, "open " + path);
  }
  if (create) {
    // Also if it was there: whoever made it may have died since.
    CKPT_TRY(sync_entries(openat(fd.get(), "..", kToList), fd.get(), path));
  }
  return std::unique_ptr<PosixDirectory>(new PosixDirectory(std::move(fd), path, ring));
}

Unexpected PosixDirectory::failed(const char* act, const std::string& name) const {
  return fail_errno(errno, std::string(act) + " " + path_ + "/" + name);
}

Result<std::unique_ptr<File>> PosixDirectory::open(const std::string& name, OpenMode mode) {
  int flags = O_RDONLY;
  if (mode != OpenMode::kRead) {
    flags = mode == OpenMode::kCreate ? O_RDWR | O_CREAT | O_EXCL : O_RDWR;
  }
  UniqueFd fd(openat(fd_.get(), name.c_str(), flags | O_CLOEXEC | O_NOFOLLOW, 0600));
  if (!fd) {
    return failed("open", name);
  }
  return std::unique_ptr<File>(
      std::make_unique<PosixFile>(std::move(fd), path_ + "/" + name, ring_));
}

Result<std::unique_ptr<Directory>> PosixDirectory::subdirectory(const std::string& name,
                                                                bool create) {
  if (create && mkdirat(fd_.get(), name.c_str(), 0700) != 0 && errno != EEXIST) {
    return failed("mkdir", name);
  }
  UniqueFd fd(openat(fd_.get(), name.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW));
  if (!fd) {
    return failed("open", name);
  }
  return std::unique_ptr<Directory>(new PosixDirectory(std::move(fd), path_ + "/" + name, ring_));
}

Result<> PosixDirectory::remove(const std::string& name) {
  return unlinkat(fd_.get(), name.c_str(), 0) == 0 ? Result<>() : Result<>(failed("unlink", name));
}

Result<> PosixDirectory::rename(const std::string& from, const std::string& to) {
  return renameat(fd_.get(), from.c_str(), fd_.get(), to.c_str()) == 0
             ? Result<>()
             : Result<>(failed("rename", from));
}

Result<std::vector<std::string>> PosixDirectory::list() {
  const int fd = openat(fd_.get(), ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  DIR* stream = fd < 0 ? nullptr : fdopendir(fd);
  if (stream == nullptr) {
    return failed("list", ".");
  }
  std::vector<std::string> names;
  while (const dirent* entry = readdir(stream)) {
    const std::string name = entry->d_name;
    if (name != "." && name != "..") {
      names.push_back(name);
    }
  }
  closedir(stream);
  std::sort(names.begin(), names.end());
  return names;
}

Result<> PosixDirectory::sync() {
  return fsync(fd_.get()) == 0 ? Result<>() : Result<>(failed("fsync", "."));
}

Result<uint64_t> PosixDirectory::free_bytes() {
  struct statvfs status {};
  if (fstatvfs(fd_.get(), &status) != 0) {
    return failed("statvfs", ".");
  }
  return static_cast<uint64_t>(status.f_bavail) * status.f_frsize;
}

Result<> create_whole(const std::string& path, uint64_t size_bytes) {
  bool is_named = false;
  const UniqueFd made = open_new(path, is_named);
  if (!made) {
    return fail_errno(errno, "open " + path);
  }
  if (ftruncate(made.get(), static_cast<off_t>(size_bytes)) != 0 || fsync(made.get()) != 0) {
    return fail_errno(errno, "make " + path);
  }
  const std::string here = "/proc/self/fd/" + std::to_string(made.get());
  if (!is_named && linkat(AT_FDCWD, here.c_str(), AT_FDCWD, path.c_str(), AT_SYMLINK_FOLLOW) != 0) {
    return fail_errno(errno, "make " + path);
  }
  return sync_entries(open(directory_of(path).c_str(), kToList), made.get(), path);
}

}  // namespace ckpt
