// SPDX-License-Identifier: Apache-2.0
#include "tools/vm_memory.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>

#include "tools/virtual_machine.h"

namespace ckpt {
namespace {

constexpr mode_t kMode = 0600;

// The largest clusters that there are, so that one table of each kind is enough.
constexpr uint32_t kClusterBits = 21;
constexpr uint64_t kClusterBytes = uint64_t{1} << kClusterBits;
constexpr uint64_t kDiskBytes = uint64_t{1} << 20U;  // of the empty disk
// What is in which cluster.
constexpr uint64_t kRefcountTable = 1;
constexpr uint64_t kRefcountBlock = 2;
constexpr uint64_t kActiveL1 = 3;
constexpr uint64_t kSnapshotL1 = 4;
constexpr uint64_t kSnapshotTable = 5;
constexpr uint64_t kSnapshotL2 = 6;
constexpr uint64_t kStream = kVmStreamOffset / kClusterBytes;
constexpr uint32_t kVersion = 3;
constexpr uint32_t kRefcountOrder = 4;  // 16 bits each
constexpr uint32_t kHeaderBytes = 104;
constexpr uint32_t kSnapshotExtraBytes = 24;
constexpr uint64_t kNoInstructionCount = ~uint64_t{0};

uint64_t clusters_of(uint64_t bytes) { return (bytes + kClusterBytes - 1) / kClusterBytes; }

// qcow2 is big-endian.
class BigEndian {
 public:
  template <typename T>
  BigEndian& put(T value) {
    for (size_t shift = 8 * sizeof(T); shift > 0; shift -= 8) {
      bytes_.push_back(static_cast<std::byte>((value >> (shift - 8)) & 0xffU));
    }
    return *this;
  }
  BigEndian& put_text(std::string_view text) {
    for (const char letter : text) {
      bytes_.push_back(static_cast<std::byte>(letter));
    }
    return *this;
  }
  std::vector<std::byte> take() { return std::move(bytes_); }

 private:
  std::vector<std::byte> bytes_;
};

std::vector<std::byte> header() {
  BigEndian bytes;
  bytes.put_text("QFI\xfb").put(kVersion);
  bytes.put(uint64_t{0}).put(uint32_t{0});  // no backing file
  bytes.put(kClusterBits).put(kDiskBytes).put(uint32_t{0});
  bytes.put(uint32_t{1}).put(kActiveL1 * kClusterBytes);
  bytes.put(kRefcountTable * kClusterBytes).put(uint32_t{1});
  bytes.put(uint32_t{1}).put(kSnapshotTable * kClusterBytes);
  bytes.put(uint64_t{0}).put(uint64_t{0}).put(uint64_t{0});  // no features
  bytes.put(kRefcountOrder).put(kHeaderBytes);
  bytes.put(uint64_t{0});  // the end of the header's extensions
  return bytes.take();
}

std::vector<std::byte> refcounts(uint64_t clusters) {
  BigEndian bytes;
  for (uint64_t i = 0; i < clusters; ++i) {
    bytes.put(uint16_t{1});
  }
  return bytes.take();
}

std::vector<std::byte> snapshot(uint64_t stream_bytes) {
  const std::string id = "1";
  const std::string name = kMemorySnapshot;
  BigEndian bytes;
  // The first entry is the disk, the second what is beyond: the state of the machine.
  bytes.put(kSnapshotL1 * kClusterBytes).put(uint32_t{2});
  bytes.put(static_cast<uint16_t>(id.size())).put(static_cast<uint16_t>(name.size()));
  bytes.put(uint32_t{0}).put(uint32_t{0}).put(uint64_t{0});  // no time
  bytes.put(uint32_t{0}).put(kSnapshotExtraBytes);
  bytes.put(stream_bytes).put(kDiskBytes).put(kNoInstructionCount);
  bytes.put_text(id).put_text(name);
  return bytes.take();
}

std::vector<std::byte> clusters_from(uint64_t first, uint64_t count) {
  BigEndian bytes;
  for (uint64_t i = 0; i < count; ++i) {
    bytes.put((first + i) * kClusterBytes);
  }
  return bytes.take();
}

std::vector<std::byte> entry(uint64_t value) { return BigEndian().put(value).take(); }

Result<> write_all(int fd, uint64_t offset, ConstByteSpan data) {
  while (!data.empty()) {
    const ssize_t count = ::pwrite(fd, data.data(), data.size(), static_cast<off_t>(offset));
    if (count < 0 && errno != EINTR) {
      return fail_errno(errno, "write a memory file");
    }
    offset += count > 0 ? static_cast<uint64_t>(count) : 0;
    data = data.subspan(count > 0 ? static_cast<size_t>(count) : 0);
  }
  return {};
}

}  // namespace

std::vector<FilePart> vm_memory_tables(uint64_t stream_bytes) {
  const uint64_t stream_clusters = clusters_of(stream_bytes);
  return {{0, header()},
          {kRefcountTable * kClusterBytes, entry(kRefcountBlock * kClusterBytes)},
          {kRefcountBlock * kClusterBytes, refcounts(kStream + stream_clusters)},
          {kSnapshotL1 * kClusterBytes + sizeof(uint64_t), entry(kSnapshotL2 * kClusterBytes)},
          {kSnapshotTable * kClusterBytes, snapshot(stream_bytes)},
          {kSnapshotL2 * kClusterBytes, clusters_from(kStream, stream_clusters)}};
}

uint64_t vm_memory_bytes(uint64_t stream_bytes) {
  return (kStream + clusters_of(stream_bytes)) * kClusterBytes;
}

Result<UniqueFd> make_unnamed_file(const std::string& folder) {
  UniqueFd fd(::open(folder.c_str(), O_TMPFILE | O_RDWR | O_CLOEXEC, kMode));
  return fd ? Result<UniqueFd>(std::move(fd))
            : Result<UniqueFd>(fail_errno(errno, "make a file for the memory in " + folder));
}

Result<std::unique_ptr<VmMemory>> VmMemory::make(const std::string& folder) {
  CKPT_ASSIGN(UniqueFd fd, make_unnamed_file(folder));
  return std::unique_ptr<VmMemory>(new VmMemory(std::move(fd)));
}

Result<> VmMemory::begin(const CheckpointInfo& /*checkpoint*/, uint64_t size_bytes) {
  size_bytes_ = size_bytes;
  return size_bytes > 0 && size_bytes <= kVmMemoryBytesMax
             ? Result<>()
             : Result<>(fail(ErrorKind::kCorrupt,
                             std::to_string(size_bytes) + " bytes are no memory of a machine"));
}

Result<> VmMemory::write(uint64_t offset, ConstByteSpan data) {
  return write_all(fd_.get(), kVmStreamOffset + offset, data);
}

Result<> VmMemory::finish() {
  for (const FilePart& part : vm_memory_tables(size_bytes_)) {
    CKPT_TRY(write_all(fd_.get(), part.offset, part.bytes));
  }
  return ::ftruncate(fd_.get(), static_cast<off_t>(vm_memory_bytes(size_bytes_))) == 0
             ? Result<>()
             : Result<>(fail_errno(errno, "make a memory file"));
}

Result<> VmMemory::rewind() const {
  return ::lseek(fd_.get(), static_cast<off_t>(kVmStreamOffset), SEEK_SET) >= 0
             ? Result<>()
             : Result<>(fail_errno(errno, "read a memory file"));
}

}  // namespace ckpt
