// SPDX-License-Identifier: Apache-2.0
// A file or block device past the page cache (open(2), O_DIRECT), for any offset and length.
#pragma once

#include "common/posix_file.h"

namespace ckpt {

// What is not aligned as the device needs it goes through a buffer of the calling thread's, and the
// unit that a write covers in part is read first. A last part of the file that is shorter than a
// unit goes through the page cache, always.
//
// Threads:    as File, but two writes to parts of one unit must not overlap in time: the write
//             path's block locks see to that, units being no larger than a block.
// Failure:    as File. A write that fails may have changed other bytes of the units that it covers
//             in part: not to be told from a torn sector.
// Lifetime:   as File.
class DirectFile : public File {
 public:
  // flags as open(2). kInvalid: the file system or device cannot do direct I/O in units of a block.
  static Result<std::unique_ptr<DirectFile>> open(const std::string& path, int flags, RingUse ring);

  Result<> read(uint64_t offset, ByteSpan buffer) override;
  Result<> write(uint64_t offset, ConstByteSpan buffer) override;
  Result<> read_many(std::span<const Transfer> transfers) override;
  Result<> write_many(std::span<const Transfer> transfers) override;
  Result<> sync() override { return direct_.sync(); }
  Result<> allocate(ByteRange range) override { return direct_.allocate(range); }
  Result<> zero(ByteRange range, bool punch) override;
  Result<> give_back(ByteRange range) override { return direct_.give_back(range); }
  Result<> resize(uint64_t size_bytes) override;
  Result<uint64_t> size() override { return direct_.size(); }
  Result<std::optional<ByteRange>> next_data(uint64_t offset) override {
    return direct_.next_data(offset);
  }
  Result<FileStamp> stamp() override { return direct_.stamp(); }

  [[nodiscard]] int fd() const { return direct_.fd(); }

 private:
  DirectFile(UniqueFd direct, UniqueFd buffered, const std::string& path, RingUse ring,
             uint64_t unit_bytes)
      : direct_(std::move(direct), path, ring),
        buffered_(std::move(buffered), path, RingUse{}),
        unit_bytes_(unit_bytes) {}
  Result<> find_tail();
  [[nodiscard]] bool is_aligned(uint64_t offset, const std::byte* buffer, uint64_t length) const;
  [[nodiscard]] bool all_aligned(std::span<const Transfer> transfers) const;
  [[nodiscard]] ByteRange cover(uint64_t offset, uint64_t length) const;
  // Of a range that ends before the tail.
  Result<> read_units(uint64_t offset, ByteSpan buffer);
  Result<> write_units(uint64_t offset, ConstByteSpan buffer);
  Result<> write_cover(ByteRange units, uint64_t offset, ConstByteSpan buffer);
  Result<> write_zeroes(ByteRange range);

  PosixFile direct_;
  PosixFile buffered_;
  const uint64_t unit_bytes_;  // a power of two
  uint64_t tail_ = 0;          // where the last, shorter unit begins
};

}  // namespace ckpt
