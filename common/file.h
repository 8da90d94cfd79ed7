// SPDX-License-Identifier: Apache-2.0
// Files, directories and shared memory as the product sees them: the seam under which the simulator
// and the fault decorators sit.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "common/block.h"
#include "common/bytes.h"
#include "common/clock.h"
#include "common/result.h"

namespace ckpt {

// What tells one file, and one state of a file, from another (statx(2)); of a block device:
// device_stamp.h.
struct FileStamp {
  uint64_t device = 0;
  uint64_t inode = 0;
  WallTime birth{};  // zero where the file system does not keep it
  uint64_t size_bytes = 0;
  WallTime modified{};  // mtime
  WallTime changed{};   // ctime

  auto operator<=>(const FileStamp&) const = default;
  // Whether it is the same file, whatever has been written to it.
  [[nodiscard]] bool same_file(const FileStamp& other) const {
    return device == other.device && inode == other.inode && birth == other.birth;
  }
};

// One read or write of many that are handed over together.
struct Transfer {
  uint64_t offset = 0;
  ByteSpan buffer;  // a write only reads it
};

// An open file or block device. Reads and writes are whole or fail: a short one is redone or an
// error; a read past the end is kIo.
//
// Threads:    all methods from any thread, at once.
// Failure:    the first failed sync is final: every later sync returns it again, and nothing that
// was
//             not synced before can be relied on.
// Lifetime:   the destructor closes; it does not sync.
class File {
 public:
  virtual ~File() = default;
  virtual Result<> read(uint64_t offset, ByteSpan buffer) = 0;
  virtual Result<> write(uint64_t offset, ConstByteSpan buffer) = 0;
  // All of them, in any order; returns the first error once none is in flight any more.
  virtual Result<> read_many(std::span<const Transfer> transfers) = 0;
  virtual Result<> write_many(std::span<const Transfer> transfers) = 0;
  // fdatasync(2): when it returns, all writes that returned before it was called are durable.
  virtual Result<> sync() = 0;
  // Begins to write to the device what was written to a range, and does not wait for it. A hint.
  virtual void write_out(ByteRange /*range*/) {}
  // Waits until what was written out of a range has reached the device, and lets go of the memory
  // that caches it. Says nothing about durability; but a failure is one of sync().
  virtual Result<> let_go(ByteRange /*range*/) { return {}; }
  // Reserves space, so that later writes to the range do not fail for want of it; content and size
  // stay (fallocate(2) with KEEP_SIZE). Done silently where the file system cannot.
  virtual Result<> allocate(ByteRange range) = 0;
  // The range reads as zeroes afterwards. With punch its space is given back where that can be.
  virtual Result<> zero(ByteRange range, bool punch) = 0;
  // The range is a hole or reads as zeroes: gives its space back where that can be (fallocate(2)
  // with PUNCH_HOLE), else does nothing.
  virtual Result<> give_back(ByteRange range) = 0;
  virtual Result<> resize(uint64_t size_bytes) = 0;
  virtual Result<uint64_t> size() = 0;
  // The first extent at or after offset that may hold data, cut off at the file's end (SEEK_DATA,
  // SEEK_HOLE); nothing: only holes follow. All is data where the file system cannot tell.
  virtual Result<std::optional<ByteRange>> next_data(uint64_t offset) = 0;
  virtual Result<FileStamp> stamp() = 0;
};

enum class OpenMode {
  kRead,       // must exist
  kReadWrite,  // must exist
  kCreate,     // read and write; must not exist; mode 0600
};

// A directory. Names are single components. A new, removed or renamed entry is durable after
// sync().
//
// Threads: all methods from any thread, at once.
class Directory {
 public:
  virtual ~Directory() = default;
  virtual Result<std::unique_ptr<File>> open(const std::string& name, OpenMode mode) = 0;
  // Opens a subdirectory; makes it (mode 0700) if missing and create is set.
  virtual Result<std::unique_ptr<Directory>> subdirectory(const std::string& name, bool create) = 0;
  // Removes a file. kNotFound if there is none.
  virtual Result<> remove(const std::string& name) = 0;
  virtual Result<> rename(const std::string& from, const std::string& to) = 0;
  virtual Result<std::vector<std::string>> list() = 0;
  virtual Result<> sync() = 0;
  // Bytes that an unprivileged writer may still take of this file system.
  virtual Result<uint64_t> free_bytes() = 0;
  // For messages: the path as the user knows it.
  [[nodiscard]] virtual std::string path() const = 0;
};

// Memory that outlives the process but not the machine: a file on a tmpfs, mapped shared.
class SharedMemory {
 public:
  virtual ~SharedMemory() = default;
  // All of it; the address never changes. Touch only what was allocated.
  [[nodiscard]] virtual ByteSpan bytes() = 0;
  // Backs the pages of a range, so that touching them cannot fault. If the tmpfs is full: kNoSpace.
  virtual Result<> allocate(ByteRange range) = 0;
  // Backs the pages with private memory instead: usable, but they do not outlive the process.
  virtual Result<> allocate_private(ByteRange range) = 0;
  // Extents that were allocated, as File::next_data.
  virtual Result<std::optional<ByteRange>> next_allocated(uint64_t offset) = 0;
};

// Where shared memory is kept.
class SharedMemoryStore {
 public:
  virtual ~SharedMemoryStore() = default;
  virtual Result<std::unique_ptr<SharedMemory>> create(const std::string& name, uint64_t bytes) = 0;
  // kNotFound if there is none of that name; kCorrupt if it has another size.
  virtual Result<std::unique_ptr<SharedMemory>> open(const std::string& name, uint64_t bytes) = 0;
  virtual Result<> remove(const std::string& name) = 0;
};

}  // namespace ckpt
