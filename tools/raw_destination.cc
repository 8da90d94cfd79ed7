// SPDX-License-Identifier: Apache-2.0
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <filesystem>

#include "common/posix_file.h"
#include "tools/destination.h"

namespace ckpt {
namespace {

constexpr mode_t kMode = 0600;  // of a disk's content: its owner decides who else may read it

// Made without a name, so that nothing is left where it is interrupted, and named when it is whole.
class RawFile : public Destination {
 public:
  RawFile(std::string path, bool force) : path_(std::move(path)), force_(force) {}

  Result<> begin(const CheckpointInfo& checkpoint, uint64_t size_bytes) override;
  Result<> write(uint64_t offset, ConstByteSpan data) override {
    return file_->write(offset, data);
  }
  // A new file has nothing but holes.
  Result<> zero(ByteRange /*range*/) override { return {}; }
  Result<> finish() override;

 private:
  [[nodiscard]] std::string folder() const;
  [[nodiscard]] std::string spare_name() const;
  [[nodiscard]] int link_as(const std::string& name) const;
  Result<> give_name();

  const std::string path_;
  const bool force_;
  std::unique_ptr<PosixFile> file_;
};

Result<> RawFile::begin(const CheckpointInfo& /*checkpoint*/, uint64_t size_bytes) {
  UniqueFd fd(::open(folder().c_str(), O_TMPFILE | O_RDWR | O_CLOEXEC, kMode));
  if (!fd) {
    return errno == EOPNOTSUPP
               ? fail(ErrorKind::kInvalid,
                      folder() +
                          ": this file system has no unnamed files (O_TMPFILE): export to "
                          "another one, and copy")
               : fail_errno(errno, folder());
  }
  file_ = std::make_unique<PosixFile>(std::move(fd), path_, RingUse{});
  return file_->resize(size_bytes);
}

Result<> RawFile::finish() {
  CKPT_TRY(file_->sync());
  CKPT_TRY(give_name());
  const UniqueFd directory(::open(folder().c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!directory || ::fsync(directory.get()) != 0) {
    return fail_errno(errno, "sync " + folder());
  }
  return {};
}

std::string RawFile::folder() const {
  const std::string parent = std::filesystem::path(path_).parent_path().string();
  return parent.empty() ? "." : parent;
}

std::string RawFile::spare_name() const { return path_ + ".export-" + std::to_string(::getpid()); }

// 0 or an errno.
int RawFile::link_as(const std::string& name) const {
  const std::string unnamed = "/proc/self/fd/" + std::to_string(file_->fd());
  return ::linkat(AT_FDCWD, unnamed.c_str(), AT_FDCWD, name.c_str(), AT_SYMLINK_FOLLOW) == 0
             ? 0
             : errno;
}

Result<> RawFile::give_name() {
  int number = link_as(path_);
  if (number == EEXIST && force_) {
    number = link_as(spare_name());
    if (number == 0 && std::rename(spare_name().c_str(), path_.c_str()) != 0) {
      number = errno;
      (void)::unlink(spare_name().c_str());
    }
  }
  return number == 0 ? Result<>() : fail_errno(number, path_);
}

// It is written over: its holes too, and those at the end, when nobody waits for what it takes.
class RawDevice : public Destination {
 public:
  explicit RawDevice(std::string path) : path_(std::move(path)) {}

  Result<> begin(const CheckpointInfo& checkpoint, uint64_t size_bytes) override;
  Result<> write(uint64_t offset, ConstByteSpan data) override {
    return file_->write(offset, data);
  }
  Result<> zero(ByteRange range) override {
    holes_.push_back(range);
    return {};
  }
  Result<> finish() override;

 private:
  const std::string path_;
  std::vector<ByteRange> holes_;
  std::unique_ptr<PosixFile> file_;
};

Result<> RawDevice::begin(const CheckpointInfo& /*checkpoint*/, uint64_t size_bytes) {
  auto file = PosixFile::open(path_, O_RDWR | O_EXCL, RingUse{});
  if (!file && file.error().number == EBUSY) {
    return fail(ErrorKind::kBusy, path_ + " is in use: mounted, part of another device, or served");
  }
  CKPT_ASSIGN(file_, std::move(file));
  CKPT_ASSIGN(const uint64_t device_bytes, file_->size());
  if (device_bytes < size_bytes) {
    return fail(ErrorKind::kNoSpace, path_ + " has " + std::to_string(device_bytes) +
                                         " bytes, and the disk " + std::to_string(size_bytes));
  }
  return {};
}

Result<> RawDevice::finish() {
  for (const ByteRange& hole : holes_) {
    CKPT_TRY(file_->zero(hole, true));
  }
  return file_->sync();
}

}  // namespace

Result<std::unique_ptr<Destination>> open_raw_destination(const std::string& path, bool force) {
  struct stat status {};
  if (::lstat(path.c_str(), &status) == 0 && S_ISLNK(status.st_mode) && !force &&
      ::stat(path.c_str(), &status) != 0) {
    return fail(ErrorKind::kIo, path + " is a symbolic link to nothing: --force replaces it");
  }
  if (::stat(path.c_str(), &status) != 0) {
    return errno == ENOENT
               ? Result<std::unique_ptr<Destination>>(std::make_unique<RawFile>(path, force))
               : fail_errno(errno, path);
  }
  const bool is_device = S_ISBLK(status.st_mode);
  if (!is_device && !S_ISREG(status.st_mode)) {
    return fail(ErrorKind::kInvalid,
                path +
                    " is neither a regular file nor a block device: a checkpoint is written in "
                    "any order; give a file or an NBD URI");
  }
  if (!force) {
    return fail(ErrorKind::kIo, path + " exists already: --force replaces what it holds");
  }
  if (is_device) {
    return std::unique_ptr<Destination>(std::make_unique<RawDevice>(path));
  }
  return std::unique_ptr<Destination>(std::make_unique<RawFile>(path, force));
}

Result<std::unique_ptr<Destination>> open_destination(const std::string& where, bool force) {
  const size_t scheme = where.find("://");
  if (scheme == std::string::npos) {
    return open_raw_destination(where, force);
  }
  if (!where.starts_with("nbd")) {
    return fail(ErrorKind::kInvalid, where + ": give a path, or an NBD URI (nbd://HOST/NAME)");
  }
  return force ? open_nbd_destination(where)
               : fail(ErrorKind::kIo, where +
                                          ": what that export holds is written over: give "
                                          "--force");
}

}  // namespace ckpt
