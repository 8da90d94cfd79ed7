// SPDX-License-Identifier: Apache-2.0
#include "tests/sim/sim_file.h"

#include <algorithm>
#include <cerrno>
#include <numeric>

namespace ckpt::sim {
namespace {

// An operation on several pages is interrupted between two of them so often; in a page, a sector's
// boundary, not so often.
constexpr uint64_t kInterruptOneIn = 4;
constexpr uint64_t kSplitPageOneIn = 32;

// Says that a write has begun, for as long as it lasts.
class Registered {
 public:
  Registered(std::vector<InFlight*>& list, InFlight& write) : list_(list), write_(write) {
    list_.push_back(&write_);
  }
  ~Registered() { std::erase(list_, &write_); }
  Registered(const Registered&) = delete;
  Registered& operator=(const Registered&) = delete;

 private:
  std::vector<InFlight*>& list_;
  InFlight& write_;
};

}  // namespace

SimFile::SimFile(SimDisk& disk, std::shared_ptr<Inode> inode, const char* path, bool writable)
    : disk_(disk),
      inode_(std::move(inode)),
      path_(path),
      process_(disk.scheduler_.process()),
      writable_(writable) {
  inode_->open();
}

Unexpected SimFile::error(int number, const char* act) const {
  return fail_errno(number, std::string(act) + " " + path_);
}

Result<> SimFile::enter(DiskOperation operation, const char* label, ByteRange range) {
  CKPT_TRY(disk_.enter(YieldKind::kFile, label, process_, {operation, path_, range}));
  disk_.scheduler_.event(label, path_, range.offset, range.length);
  const bool reads = operation == DiskOperation::kRead || operation == DiskOperation::kQuery ||
                     operation == DiskOperation::kSync;
  return writable_ || reads ? Result<>() : error(EBADF, label);
}

Result<> SimFile::go_on(const char* label) {
  disk_.scheduler_.yield(YieldKind::kFile, label);
  return disk_.scheduler_.dying() ? error(EIO, label) : Result<>();
}

// How much is done in one instant: to the end of a page, or of a sector.
size_t SimFile::next_chunk(uint64_t offset, size_t length) {
  size_t chunk = std::min<size_t>(length, kPageBytes - offset % kPageBytes);
  if (chunk > kSectorBytes && disk_.random_.one_in(kSplitPageOneIn)) {
    const uint64_t sectors = (chunk - 1) / kSectorBytes;
    chunk = disk_.random_.between(1, sectors) * kSectorBytes - offset % kSectorBytes;
  }
  return chunk;
}

Result<> SimFile::read(uint64_t offset, ByteSpan buffer) {
  CKPT_TRY(enter(DiskOperation::kRead, "read", {offset, buffer.size()}));
  while (!buffer.empty()) {
    const size_t chunk = next_chunk(offset, buffer.size());
    if (chunk > inode_->size() || offset > inode_->size() - chunk) {
      return fail(ErrorKind::kIo, std::string("read past the end of ") + path_);
    }
    inode_->read(offset, buffer.first(chunk));
    offset += chunk;
    buffer = buffer.subspan(chunk);
    if (!buffer.empty() && disk_.random_.one_in(kInterruptOneIn)) {
      CKPT_TRY(go_on("reading"));
    }
  }
  return {};
}

Result<> SimFile::write(uint64_t offset, ConstByteSpan buffer) {
  // Registered from here on: if the process is killed at once, the kernel may have the write already.
  InFlight write{process_, path_, inode_, offset, buffer};
  const Registered registered(disk_.in_flight_, write);
  const Result<> entered = enter(DiskOperation::kWrite, "write", {offset, buffer.size()});
  if (!entered && (disk_.scheduler_.dying() || entered.error().number == EBADF)) {
    return entered;
  }
  if (!entered) {
    // A write that fails may have written a part.
    write.rest = buffer.first(disk_.random_.between(0, buffer.size() / kSectorBytes) * kSectorBytes);
  }
  CKPT_TRY(write_pages(write));
  return entered;
}

Result<> SimFile::write_pages(InFlight& write) {
  while (!write.rest.empty()) {
    const size_t chunk = next_chunk(write.offset, write.rest.size());
    if (!inode_->write(write.offset, write.rest.first(chunk), disk_.stamp_time(), disk_.random_)) {
      return error(ENOSPC, "write");
    }
    write.offset += chunk;
    write.rest = write.rest.subspan(chunk);
    if (!write.rest.empty() && disk_.random_.one_in(kInterruptOneIn)) {
      CKPT_TRY(go_on("writing"));
    }
  }
  return {};
}

std::vector<size_t> SimFile::any_order(size_t count) {
  std::vector<size_t> order(count);
  std::iota(order.begin(), order.end(), size_t{0});
  for (size_t i = count; i > 1; --i) {
    std::swap(order[i - 1], order[disk_.random_.below(i)]);
  }
  return order;
}

Result<> SimFile::read_many(std::span<const Transfer> transfers) {
  Result<> result;
  for (const size_t i : any_order(transfers.size())) {
    const Result<> one = read(transfers[i].offset, transfers[i].buffer);
    result = result ? one : result;
  }
  return result;
}

Result<> SimFile::write_many(std::span<const Transfer> transfers) {
  Result<> result;
  for (const size_t i : any_order(transfers.size())) {
    const Result<> one = write(transfers[i].offset, transfers[i].buffer);
    result = result ? one : result;
  }
  return result;
}

Result<> SimFile::sync() {
  if (failed_sync_) {
    return Unexpected(*failed_sync_);
  }
  const Result<> entered = enter(DiskOperation::kSync, "sync", {});
  if (!entered) {
    if (!disk_.scheduler_.dying()) {
      inode_->fail_sync(disk_.random_);
      failed_sync_ = entered.error();
    }
    return entered;
  }
  inode_->sync(disk_.random_);
  // What is written from here on is not covered, although the call has not returned.
  CKPT_TRY(go_on("syncing"));
  disk_.scheduler_.event("synced", path_);
  return {};
}

Result<> SimFile::allocate(ByteRange range) {
  CKPT_TRY(enter(DiskOperation::kAllocate, "allocate", range));
  const BlockRange pages = blocks_of(range);
  for (uint64_t page = pages.first; page < pages.end; ++page) {
    if (!inode_->allocate(page, disk_.stamp_time())) {
      return error(ENOSPC, "fallocate");
    }
  }
  return {};
}

Result<> SimFile::zero(ByteRange range, bool punch) {
  CKPT_TRY(enter(DiskOperation::kZero, punch ? "punch" : "zero", range));
  uint64_t offset = range.offset;
  // With KEEP_SIZE, as the product zeroes, nothing happens beyond the end.
  uint64_t left = offset < inode_->size() ? std::min(range.length, inode_->size() - offset) : 0;
  while (left > 0) {
    const uint64_t chunk = std::min<uint64_t>(left, kPageBytes - offset % kPageBytes);
    if (!inode_->zero(offset, chunk, punch, disk_.stamp_time(), disk_.random_)) {
      return error(ENOSPC, "fallocate");
    }
    offset += chunk;
    left -= chunk;
    if (left > 0 && disk_.random_.one_in(kInterruptOneIn)) {
      CKPT_TRY(go_on("zeroing"));
    }
  }
  return {};
}

Result<> SimFile::resize(uint64_t size_bytes) {
  CKPT_TRY(enter(DiskOperation::kResize, "resize", {0, size_bytes}));
  inode_->resize(size_bytes, disk_.stamp_time());
  return {};
}

Result<uint64_t> SimFile::size() {
  CKPT_TRY(enter(DiskOperation::kQuery, "size", {}));
  return inode_->size();
}

Result<std::optional<ByteRange>> SimFile::next_data(uint64_t offset) {
  CKPT_TRY(enter(DiskOperation::kQuery, "next data", {offset, 0}));
  if (disk_.options_.tells_holes) {
    return inode_->next_data(offset);
  }
  const uint64_t size = inode_->size();
  return offset < size ? std::optional(ByteRange{offset, size - offset}) : std::nullopt;
}

Result<FileStamp> SimFile::stamp() {
  CKPT_TRY(enter(DiskOperation::kQuery, "stamp", {}));
  return inode_->stamp();
}

}  // namespace ckpt::sim
