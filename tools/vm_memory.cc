// SPDX-License-Identifier: Apache-2.0
#include "tools/vm_memory.h"

#include <fcntl.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>

#include "tools/descriptor.h"
#include "tools/virtual_machine.h"

namespace ckpt {
namespace {

constexpr mode_t kMode = 0600;
constexpr const char* kMemoryFile = "write a memory file";
constexpr const char* kSavedMemory = "read the saved memory";
constexpr uint64_t kBesideBytes = uint64_t{48}
                                  << 20U;  // what a stream has besides: devices' memory
constexpr uint64_t kPagesPerHeader = 256;  // a page's header is less than such a part of it
constexpr uint64_t kSpareBytes = uint64_t{16} << 20U;  // for all others meanwhile

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
// Of a side image: smaller clusters, since QEMU writes little at once.
constexpr uint32_t kSideClusterBits = 16;
constexpr uint64_t kSideRefcountTable = kRefcountTable;
constexpr uint64_t kSideRefcountBlock = 2;
constexpr uint64_t kSideActiveL1 = 3;
constexpr uint64_t kSideClusters = 4;
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

// What differs; places are numbers of clusters. The refcount table is the second.
struct HeaderPlaces {
  uint32_t cluster_bits;
  uint64_t active_l1;
  uint32_t snapshots;
  uint64_t snapshot_table;
};

std::vector<std::byte> header(const HeaderPlaces& places) {
  const uint64_t cluster_bytes = uint64_t{1} << places.cluster_bits;
  BigEndian bytes;
  bytes.put_text("QFI\xfb").put(kVersion);
  bytes.put(uint64_t{0}).put(uint32_t{0});  // no backing file
  bytes.put(places.cluster_bits).put(kDiskBytes).put(uint32_t{0});
  bytes.put(uint32_t{1}).put(places.active_l1 * cluster_bytes);
  bytes.put(kRefcountTable * cluster_bytes).put(uint32_t{1});
  bytes.put(places.snapshots).put(places.snapshot_table * cluster_bytes);
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

// At most.
uint64_t stream_bytes_of(uint64_t memory_bytes) {
  return memory_bytes + memory_bytes / kPagesPerHeader + kBesideBytes;
}

}  // namespace

std::vector<FilePart> vm_memory_tables(uint64_t stream_bytes) {
  const uint64_t stream_clusters = clusters_of(stream_bytes);
  return {{0, header({kClusterBits, kActiveL1, 1, kSnapshotTable})},
          {kRefcountTable * kClusterBytes, entry(kRefcountBlock * kClusterBytes)},
          {kRefcountBlock * kClusterBytes, refcounts(kStream + stream_clusters)},
          {kSnapshotL1 * kClusterBytes + sizeof(uint64_t), entry(kSnapshotL2 * kClusterBytes)},
          {kSnapshotTable * kClusterBytes, snapshot(stream_bytes)},
          {kSnapshotL2 * kClusterBytes, clusters_from(kStream, stream_clusters)}};
}

uint64_t vm_memory_bytes(uint64_t stream_bytes) {
  return (kStream + clusters_of(stream_bytes)) * kClusterBytes;
}

Result<> check_room_for_memory(const std::string& folder, uint64_t memory_bytes) {
  struct statvfs space {};
  if (::statvfs(folder.c_str(), &space) != 0) {
    return fail_errno(errno, folder);
  }
  const uint64_t free_bytes = uint64_t{space.f_bavail} * space.f_frsize;
  const uint64_t needed_bytes = stream_bytes_of(memory_bytes) + kSpareBytes;
  return free_bytes >= needed_bytes
             ? Result<>()
             : Result<>(fail(ErrorKind::kNoSpace, folder + ": a memory may take " +
                                                      std::to_string(needed_bytes) +
                                                      " bytes there for a while, and " +
                                                      std::to_string(free_bytes) + " are free"));
}

// QEMU says of it no more than "Input/output error".
Error explain_by_room(const std::string& folder, Error error) {
  const bool may_be_that = error.kind == ErrorKind::kIo || error.kind == ErrorKind::kVoid ||
                           error.kind == ErrorKind::kCorrupt;
  const auto room = may_be_that ? check_room_for_memory(folder, 0) : Result<>();
  return room || room.error().kind != ErrorKind::kNoSpace
             ? std::move(error)
             : Error{ErrorKind::kNoSpace, 0,
                     error.message() + ". " + folder +
                         ", where the memory is for a while, has no room any more: make some, and "
                         "repeat the command"};
}

Result<UniqueFd> make_unnamed_file(const std::string& folder) {
  UniqueFd fd(::open(folder.c_str(), O_TMPFILE | O_RDWR | O_CLOEXEC, kMode));
  return fd ? Result<UniqueFd>(std::move(fd))
            : Result<UniqueFd>(fail_errno(errno, "make a file for the memory in " + folder));
}

Result<> reserve_for_memory(int fd, const std::string& folder, uint64_t memory_bytes) {
  const auto bytes = static_cast<off_t>(stream_bytes_of(memory_bytes));
  if (::fallocate(fd, FALLOC_FL_KEEP_SIZE, 0, bytes) == 0 || errno == EOPNOTSUPP) {
    return {};
  }
  return fail_errno(errno,
                    "reserve " + std::to_string(bytes) + " bytes for the memory in " + folder);
}

Result<std::unique_ptr<VmMemory>> VmMemory::make(const std::string& folder) {
  CKPT_ASSIGN(UniqueFd fd, make_unnamed_file(folder));
  return std::unique_ptr<VmMemory>(new VmMemory(std::move(fd)));
}

VmMemory::~VmMemory() { (void)::ftruncate(fd_.get(), 0); }

Result<> VmMemory::begin(const CheckpointInfo& /*checkpoint*/, uint64_t size_bytes) {
  size_bytes_ = size_bytes;
  return size_bytes > 0 && size_bytes <= kVmMemoryBytesMax
             ? Result<>()
             : Result<>(fail(ErrorKind::kCorrupt,
                             std::to_string(size_bytes) + " bytes are no memory of a machine"));
}

Result<> VmMemory::write(uint64_t offset, ConstByteSpan data) {
  return write_all_at(fd_.get(), kVmStreamOffset + offset, data, kMemoryFile);
}

Result<> VmMemory::finish() {
  for (const FilePart& part : vm_memory_tables(size_bytes_)) {
    CKPT_TRY(write_all_at(fd_.get(), part.offset, part.bytes, kMemoryFile));
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

VmSideImage::~VmSideImage() { (void)::ftruncate(fd_.get(), 0); }

Result<std::unique_ptr<VmSideImage>> VmSideImage::make(const std::string& folder) {
  CKPT_ASSIGN(UniqueFd fd, make_unnamed_file(folder));
  const std::vector<FilePart> parts{
      {0, header({kSideClusterBits, kSideActiveL1, 0, 0})},
      {kSideRefcountTable << kSideClusterBits, entry(kSideRefcountBlock << kSideClusterBits)},
      {kSideRefcountBlock << kSideClusterBits, refcounts(kSideClusters)}};
  for (const FilePart& part : parts) {
    CKPT_TRY(write_all_at(fd.get(), part.offset, part.bytes, kMemoryFile));
  }
  if (::ftruncate(fd.get(), static_cast<off_t>(kSideClusters << kSideClusterBits)) != 0) {
    return fail_errno(errno, "make a file for the memory");
  }
  return std::unique_ptr<VmSideImage>(new VmSideImage(std::move(fd)));
}

Result<uint64_t> VmSideImage::number_at(uint64_t offset, size_t bytes) const {
  std::array<std::byte, sizeof(uint64_t)> buffer{};
  CKPT_TRY(read_all_at(fd_.get(), offset, ByteSpan(buffer).first(bytes), kSavedMemory));
  uint64_t number = 0;
  for (size_t i = 0; i < bytes; ++i) {
    number = number << 8U | static_cast<uint64_t>(buffer[i]);
  }
  return number;
}

// QEMU's docs/interop/qcow2.txt: "Header", "Snapshots".
Result<uint64_t> VmSideImage::find_stream() {
  constexpr uint64_t kCountAt = 60;
  constexpr uint64_t kTableAt = 64;
  constexpr uint64_t kExtraSizeAt = 36;
  constexpr uint64_t kStateBytesAt = 40;
  CKPT_ASSIGN(const uint64_t count, number_at(kCountAt, sizeof(uint32_t)));
  CKPT_ASSIGN(const uint64_t table, number_at(kTableAt, sizeof(uint64_t)));
  if (count != 1 || table == 0) {
    return fail(ErrorKind::kCorrupt, "QEMU has saved no snapshot");
  }
  CKPT_ASSIGN(l1_offset_, number_at(table, sizeof(uint64_t)));
  CKPT_ASSIGN(const uint64_t extra, number_at(table + kExtraSizeAt, sizeof(uint32_t)));
  CKPT_ASSIGN(stream_bytes_, number_at(table + kStateBytesAt, sizeof(uint64_t)));
  return extra >= sizeof(uint64_t) && stream_bytes_ > 0 && stream_bytes_ <= kVmMemoryBytesMax
             ? Result<uint64_t>(stream_bytes_)
             : Result<uint64_t>(fail(ErrorKind::kCorrupt, "QEMU has saved no memory"));
}

// Cluster by cluster; what has none is zero.
Result<> VmSideImage::read(uint64_t offset, ByteSpan buffer) const {
  constexpr uint64_t kOffsetMask = 0x00fffffffffffe00;  // of an entry of a table
  constexpr uint64_t kSide = uint64_t{1} << kSideClusterBits;
  constexpr uint64_t kEntries = kSide / sizeof(uint64_t);
  while (!buffer.empty()) {
    const uint64_t cluster = offset / kSide;
    const uint64_t within_bytes = offset % kSide;
    const ByteSpan part = buffer.first(std::min<uint64_t>(buffer.size(), kSide - within_bytes));
    // The first entry is the disk's.
    CKPT_ASSIGN(
        const uint64_t l1,
        number_at(l1_offset_ + (1 + cluster / kEntries) * sizeof(uint64_t), sizeof(uint64_t)));
    const uint64_t l2_at = (l1 & kOffsetMask) + cluster % kEntries * sizeof(uint64_t);
    CKPT_ASSIGN(const uint64_t l2, (l1 & kOffsetMask) == 0 ? Result<uint64_t>(uint64_t{0})
                                                           : number_at(l2_at, sizeof(uint64_t)));
    if ((l2 & kOffsetMask) == 0) {
      std::ranges::fill(part, std::byte{0});
    } else {
      CKPT_TRY(read_all_at(fd_.get(), (l2 & kOffsetMask) + within_bytes, part, kSavedMemory));
    }
    buffer = buffer.subspan(part.size());
    offset += part.size();
  }
  return {};
}

}  // namespace ckpt
