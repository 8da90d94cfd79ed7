// SPDX-License-Identifier: Apache-2.0
// Handles on a simulated disk: what the product holds. Private to the disk.
#pragma once

#include "tests/sim/sim_disk.h"

namespace ckpt::sim {

class SimFile final : public File {
 public:
  SimFile(SimDisk& disk, std::shared_ptr<Inode> inode, const char* path, bool writable);
  ~SimFile() override { inode_->close(); }
  SimFile(const SimFile&) = delete;
  SimFile& operator=(const SimFile&) = delete;

  Result<> read(uint64_t offset, ByteSpan buffer) override;
  Result<> write(uint64_t offset, ConstByteSpan buffer) override;
  Result<> read_many(std::span<const Transfer> transfers) override;
  Result<> write_many(std::span<const Transfer> transfers) override;
  Result<> sync() override;
  Result<> allocate(ByteRange range) override;
  Result<> zero(ByteRange range, bool punch) override;
  Result<> give_back(ByteRange range) override { return zero(range, true); }
  Result<> resize(uint64_t size_bytes) override;
  Result<uint64_t> size() override;
  Result<std::optional<ByteRange>> next_data(uint64_t offset) override;
  Result<FileStamp> stamp() override;

 private:
  Result<> enter(DiskOperation operation, const char* label, ByteRange range);
  // Within an operation, that the fiber does not finish at once.
  Result<> go_on(const char* label);
  size_t next_chunk(uint64_t offset, size_t length);
  Result<> write_pages(InFlight& write);
  [[nodiscard]] std::vector<size_t> any_order(size_t count);
  [[nodiscard]] Unexpected error(int number, const char* act) const;

  SimDisk& disk_;
  std::shared_ptr<Inode> inode_;  // the disk's
  const char* path_;              // interned by the disk
  ProcessId process_;
  bool writable_;
  std::optional<Error> failed_sync_;
};

class SimDirectory final : public Directory {
 public:
  SimDirectory(SimDisk& disk, std::shared_ptr<DirectoryNode> node, std::string path);

  Result<std::unique_ptr<File>> open(const std::string& name, OpenMode mode) override;
  Result<std::unique_ptr<Directory>> subdirectory(const std::string& name, bool create) override;
  Result<> remove(const std::string& name) override;
  Result<> rename(const std::string& from, const std::string& to) override;
  Result<std::vector<std::string>> list() override;
  Result<> sync() override;
  Result<uint64_t> free_bytes() override;
  [[nodiscard]] std::string path() const override { return path_; }

 private:
  Result<> enter(DiskOperation operation, const char* label, const std::string& name);
  [[nodiscard]] std::string path_of(const std::string& name) const;
  [[nodiscard]] Unexpected error(int number, const char* act, const std::string& name) const;
  std::unique_ptr<File> create_file(const std::string& name);

  SimDisk& disk_;
  std::shared_ptr<DirectoryNode> node_;  // the disk's
  std::string path_;                     // "" is the root
  ProcessId process_;
};

}  // namespace ckpt::sim
