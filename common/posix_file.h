// SPDX-License-Identifier: Apache-2.0
// Files and directories of the kernel's.
#pragma once

#include <atomic>

#include "common/fd.h"
#include "common/file.h"
#include "common/mutex.h"
#include "common/uring.h"

namespace ckpt {

// Which transfers go through io_uring.
struct RingUse {
  bool reads = false;          // read_many
  bool writes = false;         // write_many
  bool single_writes = false;  // write: worth it only where a buffered write does not block
};

class PosixFile : public File {
 public:
  // path: for messages.
  PosixFile(UniqueFd fd, std::string path, RingUse ring)
      : fd_(std::move(fd)), path_(std::move(path)), ring_(ring) {}
  // Opens any path, for the image itself; flags as open(2), O_CLOEXEC is added.
  static Result<std::unique_ptr<PosixFile>> open(const std::string& path, int flags, RingUse ring);

  Result<> read(uint64_t offset, ByteSpan buffer) override;
  Result<> write(uint64_t offset, ConstByteSpan buffer) override;
  Result<> read_many(std::span<const Transfer> transfers) override;
  Result<> write_many(std::span<const Transfer> transfers) override;
  Result<> sync() override;
  void write_out(ByteRange range) override;
  Result<> let_go(ByteRange range) override;
  Result<> allocate(ByteRange range) override;
  Result<> zero(ByteRange range, bool punch) override;
  Result<> give_back(ByteRange range) override;
  Result<> resize(uint64_t size_bytes) override;
  Result<uint64_t> size() override;
  Result<std::optional<ByteRange>> next_data(uint64_t offset) override;
  Result<FileStamp> stamp() override;

  [[nodiscard]] int fd() const { return fd_.get(); }
  void use_ring(RingUse ring) { ring_ = ring; }

 private:
  Result<> transfer(TransferKind kind, std::span<const Transfer> transfers, bool ring);
  Result<> write_zeroes(ByteRange range);
  [[nodiscard]] Unexpected failed(int number, const char* act) const;

  UniqueFd fd_;
  std::string path_;
  RingUse ring_;
  std::atomic<uint64_t> syncs_asked_{0};
  Mutex sync_mutex_;
  uint64_t syncs_done_ CKPT_GUARDED_BY(sync_mutex_) = 0;  // covers those asked for up to this
  std::optional<Error> sync_failed_ CKPT_GUARDED_BY(sync_mutex_);
};

class PosixDirectory : public Directory {
 public:
  // Opens a directory; with create it is made if the last component is missing, durably.
  static Result<std::unique_ptr<PosixDirectory>> open(const std::string& path, bool create,
                                                      RingUse ring);

  Result<std::unique_ptr<File>> open(const std::string& name, OpenMode mode) override;
  Result<std::unique_ptr<Directory>> subdirectory(const std::string& name, bool create) override;
  Result<> remove(const std::string& name) override;
  Result<> rename(const std::string& from, const std::string& to) override;
  Result<std::vector<std::string>> list() override;
  Result<> sync() override;
  Result<uint64_t> free_bytes() override;
  [[nodiscard]] std::string path() const override { return path_; }
  [[nodiscard]] int fd() const { return fd_.get(); }

 private:
  PosixDirectory(UniqueFd fd, std::string path, RingUse ring)
      : fd_(std::move(fd)), path_(std::move(path)), ring_(ring) {}
  [[nodiscard]] Unexpected failed(const char* act, const std::string& name) const;

  UniqueFd fd_;
  std::string path_;
  RingUse ring_;
};

// The directory that a path is in: "." if it names none.
std::string directory_of(const std::string& path);
// Makes a file of that size, all holes, mode 0600, durably: whenever this process dies, it is there
// with its size or not at all (where the file system has O_TMPFILE). kIo with EEXIST if there is
// one.
Result<> create_whole(const std::string& path, uint64_t size_bytes);

}  // namespace ckpt
