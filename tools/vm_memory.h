// SPDX-License-Identifier: Apache-2.0
// The memory of a virtual machine, as QEMU has written it, in a file that a running QEMU can load
// in place: an internal snapshot of a qcow2 image (QEMU's docs/interop/qcow2.txt), whose disk is
// empty.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "common/fd.h"
#include "tools/attachment_destination.h"

namespace ckpt {

// kNoSpace: a folder's file system, which may be that of the primary image and must not run full,
// has no room for so much memory.
Result<> check_room_for_memory(const std::string& folder, uint64_t memory_bytes);

// The same error; where that file system has run full meanwhile, kNoSpace, which says so.
Error explain_by_room(const std::string& folder, Error error);

// A file without a name in a folder that exists, which is gone with its last descriptor. kIo: none
// can be made there.
Result<UniqueFd> make_unnamed_file(const std::string& folder);

// A memory fits into that file, whatever else is written to its file system meanwhile; where that
// cannot be promised, nothing is reserved. kNoSpace.
Result<> reserve_for_memory(int fd, const std::string& folder, uint64_t memory_bytes);

// Without a name: it is gone with its last descriptor.
//
// Threads: one.
class VmMemory final : public Destination {
 public:
  // As make_unnamed_file().
  static Result<std::unique_ptr<VmMemory>> make(const std::string& folder);
  // Nothing of it is left, although QEMU may keep its descriptor.
  ~VmMemory() override;
  VmMemory(const VmMemory&) = delete;
  VmMemory& operator=(const VmMemory&) = delete;

  // size_bytes: of the stream. Nothing is durable.
  Result<> begin(const CheckpointInfo& checkpoint, uint64_t size_bytes) override;
  Result<> write(uint64_t offset, ConstByteSpan data) override;
  Result<> zero(ByteRange /*range*/) override { return {}; }
  Result<> finish() override;

  [[nodiscard]] int fd() const { return fd_.get(); }
  // From where the next who reads it gets the stream.
  Result<> rewind() const;

 private:
  explicit VmMemory(UniqueFd fd) : fd_(std::move(fd)) {}

  UniqueFd fd_;
  uint64_t size_bytes_ = 0;
};

// Where the stream begins in such a file.
inline constexpr uint64_t kVmStreamOffset = uint64_t{14} << 20U;
// One L2 table is enough for it.
inline constexpr uint64_t kVmMemoryBytesMax = uint64_t{1} << 39U;

struct FilePart {
  uint64_t offset;
  std::vector<std::byte> bytes;
};

// What is in such a file besides a stream of so many bytes; the rest is zero.
std::vector<FilePart> vm_memory_tables(uint64_t stream_bytes);
// How long the whole file is: to the end of a cluster.
uint64_t vm_memory_bytes(uint64_t stream_bytes);

// The other way round: an image for a running QEMU to save a snapshot in, and the stream out of it.
//
// Threads: one.
class VmSideImage {
 public:
  // Empty; as make_unnamed_file().
  static Result<std::unique_ptr<VmSideImage>> make(const std::string& folder);
  ~VmSideImage();
  VmSideImage(const VmSideImage&) = delete;
  VmSideImage& operator=(const VmSideImage&) = delete;
  [[nodiscard]] int fd() const { return fd_.get(); }

  // When QEMU has saved, and has closed it: how long the stream is. kCorrupt: there is none.
  Result<uint64_t> find_stream();
  // Part of it, which was found. kCorrupt: its tables lead nowhere.
  Result<> read(uint64_t offset, ByteSpan buffer) const;

 private:
  explicit VmSideImage(UniqueFd fd) : fd_(std::move(fd)) {}
  [[nodiscard]] Result<uint64_t> number_at(uint64_t offset, size_t bytes) const;

  UniqueFd fd_;
  uint64_t stream_bytes_ = 0;
  uint64_t l1_offset_ = 0;
};

}  // namespace ckpt
