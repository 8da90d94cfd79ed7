// SPDX-License-Identifier: Apache-2.0
#include "common/direct_file.h"

#include <fcntl.h>
#include <sys/ioctl.h>
#include <sys/stat.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cerrno>

#include "common/aligned_buffer.h"

// It clashes with <fcntl.h> unless it comes after it.
#include <linux/fs.h>

namespace ckpt {
namespace {

// What one transfer of unaligned data takes at once.
constexpr uint64_t kBounceBytes = uint64_t{1} << 20U;

// The calling thread's: fresh pages for every request would cost more than the copying.
ByteSpan bounce_buffer() {
  thread_local const AlignedBuffer buffer(kBounceBytes);
  return buffer.span();
}

// The unit of direct I/O, of offsets and lengths (statx(2), STATX_DIOALIGN, since Linux 6.1); where
// the kernel does not tell: a sector of a device, a block of a file. 0: there is no direct I/O.
Result<uint64_t> unit_of(int fd, const std::string& path) {
#ifdef STATX_DIOALIGN
  struct statx status {};
  if (statx(fd, "", AT_EMPTY_PATH, STATX_DIOALIGN, &status) == 0 &&
      (status.stx_mask & STATX_DIOALIGN) != 0) {
    return uint64_t{std::max(status.stx_dio_offset_align, status.stx_dio_mem_align)};
  }
#endif
  struct stat plain {};
  if (fstat(fd, &plain) != 0) {
    return fail_errno(errno, "fstat " + path);
  }
  int sector_bytes = 0;
  if (S_ISBLK(plain.st_mode) && ioctl(fd, BLKSSZGET, &sector_bytes) != 0) {
    return fail_errno(errno, "BLKSSZGET " + path);
  }
  return S_ISBLK(plain.st_mode) ? static_cast<uint64_t>(sector_bytes) : kBlockBytes;
}

Unexpected no_direct(const std::string& path, const std::string& why) {
  return fail(ErrorKind::kInvalid, path + ": no direct I/O here (" + why + "); use direct=off");
}

}  // namespace

Result<std::unique_ptr<DirectFile>> DirectFile::open(const std::string& path, int flags,
                                                     RingUse ring) {
  UniqueFd direct(::open(path.c_str(), flags | O_DIRECT | O_CLOEXEC, 0600));
  if (!direct && errno == EINVAL) {
    return no_direct(path, "the file system has none");
  }
  // A device that is open exclusively can be opened again only without that flag.
  UniqueFd buffered(direct ? ::open(path.c_str(), (flags & ~(O_EXCL | O_CREAT)) | O_CLOEXEC) : -1);
  if (!direct || !buffered) {
    return fail_errno(errno, "open " + path);
  }
  CKPT_ASSIGN(const uint64_t unit_bytes, unit_of(direct.get(), path));
  if (!std::has_single_bit(unit_bytes) || unit_bytes > kBlockBytes) {
    return no_direct(path, unit_bytes == 0 ? "the file system has none"
                                           : "units of " + std::to_string(unit_bytes) + " bytes");
  }
  auto file = std::unique_ptr<DirectFile>(
      new DirectFile(std::move(direct), std::move(buffered), path, ring, unit_bytes));
  CKPT_TRY(file->find_tail());
  return file;
}

Result<> DirectFile::find_tail() {
  CKPT_ASSIGN(const uint64_t size_bytes, direct_.size());
  tail_ = size_bytes / unit_bytes_ * unit_bytes_;
  return {};
}

Result<> DirectFile::resize(uint64_t size_bytes) {
  CKPT_TRY(direct_.resize(size_bytes));
  return find_tail();
}

bool DirectFile::is_aligned(uint64_t offset, const std::byte* buffer, uint64_t length) const {
  return (offset | length | reinterpret_cast<uintptr_t>(buffer)) % unit_bytes_ == 0;
}

bool DirectFile::all_aligned(std::span<const Transfer> transfers) const {
  return std::ranges::all_of(transfers, [this](const Transfer& transfer) {
    return transfer.offset + transfer.buffer.size() <= tail_ &&
           is_aligned(transfer.offset, transfer.buffer.data(), transfer.buffer.size());
  });
}

// All units that a range touches, as many as fit the buffer.
ByteRange DirectFile::cover(uint64_t offset, uint64_t length) const {
  const uint64_t begin = offset / unit_bytes_ * unit_bytes_;
  const uint64_t end = (offset + length + unit_bytes_ - 1) / unit_bytes_ * unit_bytes_;
  return {begin, std::min(end - begin, kBounceBytes)};
}

Result<> DirectFile::read(uint64_t offset, ByteSpan buffer) {
  const uint64_t before = std::min<uint64_t>(tail_ - std::min(tail_, offset), buffer.size());
  CKPT_TRY(read_units(offset, buffer.first(before)));
  const ByteSpan rest = buffer.subspan(before);
  return rest.empty() ? Result<>() : buffered_.read(offset + before, rest);
}

Result<> DirectFile::read_units(uint64_t offset, ByteSpan buffer) {
  if (is_aligned(offset, buffer.data(), buffer.size())) {
    return buffer.empty() ? Result<>() : direct_.read(offset, buffer);
  }
  while (!buffer.empty()) {
    const ByteRange units = cover(offset, buffer.size());
    const ByteSpan bounce = bounce_buffer().first(units.length);
    CKPT_TRY(direct_.read(units.offset, bounce));
    const uint64_t length = std::min<uint64_t>(units.end() - offset, buffer.size());
    copy_bytes(bounce.subspan(offset - units.offset, length), buffer);
    offset += length;
    buffer = buffer.subspan(length);
  }
  return {};
}

Result<> DirectFile::write(uint64_t offset, ConstByteSpan buffer) {
  const uint64_t before = std::min<uint64_t>(tail_ - std::min(tail_, offset), buffer.size());
  CKPT_TRY(write_units(offset, buffer.first(before)));
  const ConstByteSpan rest = buffer.subspan(before);
  return rest.empty() ? Result<>() : buffered_.write(offset + before, rest);
}

Result<> DirectFile::write_units(uint64_t offset, ConstByteSpan buffer) {
  if (is_aligned(offset, buffer.data(), buffer.size())) {
    return buffer.empty() ? Result<>() : direct_.write(offset, buffer);
  }
  while (!buffer.empty()) {
    const ByteRange units = cover(offset, buffer.size());
    const uint64_t length = std::min<uint64_t>(units.end() - offset, buffer.size());
    CKPT_TRY(write_cover(units, offset, buffer.first(length)));
    offset += length;
    buffer = buffer.subspan(length);
  }
  return {};
}

// What the first and the last unit hold besides is read first.
Result<> DirectFile::write_cover(ByteRange units, uint64_t offset, ConstByteSpan buffer) {
  const ByteSpan bounce = bounce_buffer().first(units.length);
  const uint64_t end = offset + buffer.size();
  if (offset != units.offset) {
    CKPT_TRY(direct_.read(units.offset, bounce.first(unit_bytes_)));
  }
  const bool last_is_first = units.length == unit_bytes_ && offset != units.offset;
  if (end != units.end() && !last_is_first) {
    CKPT_TRY(direct_.read(units.end() - unit_bytes_, bounce.last(unit_bytes_)));
  }
  copy_bytes(buffer, bounce.subspan(offset - units.offset));
  return direct_.write(units.offset, bounce);
}

Result<> DirectFile::read_many(std::span<const Transfer> transfers) {
  if (all_aligned(transfers)) {
    return direct_.read_many(transfers);
  }
  for (const Transfer& transfer : transfers) {
    CKPT_TRY(read(transfer.offset, transfer.buffer));
  }
  return {};
}

Result<> DirectFile::write_many(std::span<const Transfer> transfers) {
  if (all_aligned(transfers)) {
    return direct_.write_many(transfers);
  }
  for (const Transfer& transfer : transfers) {
    CKPT_TRY(write(transfer.offset, transfer.buffer));
  }
  return {};
}

// Whole units by the file system or device, the edges as writes.
Result<> DirectFile::zero(ByteRange range, bool punch) {
  const uint64_t end = std::min(range.end(), tail_);
  const uint64_t first = (range.offset + unit_bytes_ - 1) / unit_bytes_ * unit_bytes_;
  const uint64_t last = end / unit_bytes_ * unit_bytes_;
  if (first >= last) {
    return write_zeroes(range);
  }
  CKPT_TRY(write_zeroes({range.offset, first - range.offset}));
  CKPT_TRY(direct_.zero({first, last - first}, punch));
  return write_zeroes({last, range.end() - last});
}

// Of an edge: less than three units.
Result<> DirectFile::write_zeroes(ByteRange range) {
  constexpr std::array<std::byte, 3 * kBlockBytes> kZeroes{};
  return range.length == 0 ? Result<>()
                           : write(range.offset, std::span(kZeroes).first(range.length));
}

}  // namespace ckpt
