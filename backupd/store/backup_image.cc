// SPDX-License-Identifier: Apache-2.0
#include "backupd/store/backup_image.h"

#include <algorithm>

#include "backupd/store/latch.h"

namespace ckpt {
namespace {

constexpr char kImageName[] = "backup.img";

BlockRange blocks_of(const Extent& extent) {
  return ckpt::blocks_of(ByteRange{extent.offset, extent.length});
}

}  // namespace

// An empty one that a creation left is removed, not used: its sync may have failed, and no later
// sync would tell.
Result<std::unique_ptr<BackupImage>> BackupImage::create(Directory& directory,
                                                         uint64_t size_bytes) {
  if (auto left = directory.open(kImageName, OpenMode::kReadWrite)) {
    CKPT_ASSIGN(const auto data, (*left)->next_data(0));
    if (data) {
      return fail(ErrorKind::kCorrupt, directory.path() + "/" + kImageName +
                                           ": has data, but `volume` is missing; not overwritten");
    }
    CKPT_TRY(directory.remove(kImageName));
  } else if (left.error().kind != ErrorKind::kNotFound) {
    return Unexpected(left.error());
  }
  CKPT_ASSIGN(auto created, directory.open(kImageName, OpenMode::kCreate));
  CKPT_TRY(created->resize(size_bytes));
  CKPT_TRY(final_failure(created->sync()));
  return std::unique_ptr<BackupImage>(new BackupImage(std::move(created), size_bytes));
}

Result<std::unique_ptr<BackupImage>> BackupImage::open(Directory& directory, uint64_t size_bytes) {
  const std::string path = directory.path() + "/" + kImageName;
  auto file = directory.open(kImageName, OpenMode::kReadWrite);
  if (!file && file.error().kind == ErrorKind::kNotFound) {
    return fail(ErrorKind::kCorrupt, path + ": is missing");
  }
  CKPT_ASSIGN(auto opened, std::move(file));
  // What a killed process wrote may be in the page cache only.
  CKPT_TRY(final_failure(opened->sync()));
  CKPT_ASSIGN(const uint64_t actual_bytes, opened->size());
  if (actual_bytes != size_bytes) {
    return fail(ErrorKind::kCorrupt, path + ": has " + std::to_string(actual_bytes) +
                                         " bytes, not " + std::to_string(size_bytes));
  }
  std::unique_ptr<BackupImage> image(new BackupImage(std::move(opened), size_bytes));
  CKPT_TRY(image->learn_allocated());
  return image;
}

Result<> BackupImage::learn_allocated() {
  const MutexLock lock(mutex_);
  uint64_t offset = 0;
  while (offset < size_bytes_) {
    CKPT_ASSIGN(const auto data, file_->next_data(offset));
    if (!data) {
      break;
    }
    allocated_.add(ckpt::blocks_of(*data));
    offset = data->end();
  }
  return {};
}

Result<> BackupImage::reserve(const BatchHeader& header, const std::vector<Extent>& extents) {
  const MutexLock lock(mutex_);
  // First: what is expected is not given back.
  note(header, extents);
  const BlockSet& coming = expected_[header.epoch].written;
  for (const Extent& extent : extents) {
    if (extent.kind == ExtentKind::kData) {
      CKPT_TRY(reserve_blocks(blocks_of(extent), coming));
    }
  }
  return {};
}

void BackupImage::set_ample(bool is_ample) {
  const MutexLock lock(mutex_);
  is_ample_ = is_ample;
}

Result<> BackupImage::reserve_blocks(BlockRange blocks, const BlockSet& coming) {
  while (const auto run = allocated_.find(blocks, false)) {
    auto allocated = allocate(with_ahead(*run, coming));
    if (!allocated && allocated.error().kind == ErrorKind::kNoSpace) {
      is_ample_ = false;
      CKPT_TRY(give_back_unwritten());
      allocated = allocate(*run);
    }
    CKPT_TRY(allocated);
    blocks.first = run->end;
  }
  return {};
}

// These blocks and, where many around them are taken or in what is coming, what is left between
// those.
BlockRange BackupImage::with_ahead(BlockRange blocks, const BlockSet& coming) const {
  constexpr uint64_t kBlocks = kAheadBytes / kBlockBytes;
  const uint64_t first = blocks.first / kBlocks * kBlocks;
  const BlockRange around{first, std::min(first + kBlocks, block_count(size_bytes_))};
  const bool is_inside = blocks.end <= around.end;
  const auto is_dense = [&around](const BlockSet& set) {
    return set.count(around) * kAheadShare >= kBlocks;
  };
  const bool is_worth_it = is_ample_ && is_inside && (is_dense(allocated_) || is_dense(coming));
  return is_worth_it ? around : blocks;
}

// Noted first: of one that fails, part may be taken.
Result<> BackupImage::allocate(BlockRange blocks) {
  BlockRange rest = blocks;
  while (const auto gap = allocated_.find(rest, false)) {
    unwritten_.add(*gap);
    rest.first = gap->end;
  }
  auto allocated = file_->allocate(bytes_of(blocks, size_bytes_));
  if (allocated) {
    allocated_.add(blocks);
  }
  return allocated;
}

void BackupImage::expect(const Batch& batch) {
  const MutexLock lock(mutex_);
  note(batch.header, batch.extents);
}

void BackupImage::note(const BatchHeader& header, const std::vector<Extent>& extents) {
  Expected& expected = expected_[header.epoch];
  const bool is_newest = header.sequence >= expected.sequence_max;
  for (const Extent& extent : extents) {
    if (extent.kind == ExtentKind::kData) {
      expected.data.add(blocks_of(extent));
      expected.written.add(blocks_of(extent));
    } else if (is_newest) {
      // An older batch's zeroes will be overwritten by a newer one's data: then it stays expected.
      expected.data.remove(blocks_of(extent));
    }
  }
  expected.sequence_max = std::max(expected.sequence_max, header.sequence);
}

void BackupImage::drop(Epoch epoch) {
  const MutexLock lock(mutex_);
  expected_.erase(epoch);
}

Result<> BackupImage::give_back() {
  const MutexLock lock(mutex_);
  return give_back_unwritten();
}

Result<> BackupImage::give_back_unwritten() {
  BlockRange rest{0, block_count(size_bytes_)};
  while (const auto run = unwritten_.find(rest, true)) {
    bool is_needed = false;
    const BlockRange part = run_at(*run, Epoch{}, &Expected::written, is_needed);
    if (!is_needed) {
      CKPT_TRY(file_->give_back(bytes_of(part, size_bytes_)));
      unwritten_.remove(part);
      allocated_.remove(part);
    }
    rest.first = part.end;
  }
  return {};
}

Result<> BackupImage::give_back_holes() {
  const MutexLock lock(mutex_);
  BlockRange rest{0, block_count(size_bytes_)};
  while (const auto hole = are_holes_free_ ? std::nullopt : allocated_.find(rest, false)) {
    bool is_needed = false;
    const BlockRange part = run_at(*hole, Epoch{}, &Expected::written, is_needed);
    if (!is_needed) {
      CKPT_TRY(file_->give_back(bytes_of(part, size_bytes_)));
    }
    rest.first = part.end;
  }
  are_holes_free_ = true;
  return {};
}

Result<> BackupImage::clear() {
  const MutexLock lock(mutex_);
  CKPT_ASSIGN(const auto data, file_->next_data(0));
  if (data) {
    CKPT_TRY(file_->zero({0, size_bytes_}, true));
  }
  allocated_.clear();
  unwritten_.clear();
  are_holes_free_ = false;
  return {};
}

BlockRange BackupImage::run_at(BlockRange blocks, Epoch from, BlockSet Expected::*set,
                               bool& is_in) const {
  is_in = false;
  BlockRange run = blocks;
  for (auto entry = expected_.lower_bound(from); entry != expected_.end(); ++entry) {
    const auto found = (entry->second.*set).find(run, true);
    if (found && found->first == blocks.first) {
      is_in = true;
      return *found;
    }
    run.end = found ? found->first : run.end;
  }
  return run;
}

Result<> BackupImage::apply(Batch& batch) {
  CKPT_TRY(apply_data(batch));
  for (const Extent& extent : batch.extents) {
    if (extent.kind == ExtentKind::kZero) {
      CKPT_TRY(apply_zeroes(extent, batch.header.epoch));
    }
  }
  return {};
}

Result<> BackupImage::apply_data(Batch& batch) {
  std::vector<Transfer> transfers;
  ByteSpan rest(batch.data);
  for (const Extent& extent : batch.extents) {
    if (extent.kind == ExtentKind::kData) {
      transfers.push_back({extent.offset, rest.first(extent.length)});
      rest = rest.subspan(extent.length);
    }
  }
  if (transfers.empty()) {
    return {};
  }
  CKPT_TRY(file_->write_many(transfers));
  const MutexLock lock(mutex_);
  for (const Transfer& transfer : transfers) {
    const BlockRange blocks = ckpt::blocks_of(ByteRange{transfer.offset, transfer.buffer.size()});
    allocated_.add(blocks);
    // Only now: a later epoch may have reserved them, as unwritten, while they were being written.
    // Until the pass ends they are expected, so nobody gives them back.
    unwritten_.remove(blocks);
  }
  return {};
}

// Punches only where no data is expected any more: the space of the others is reserved.
Result<> BackupImage::apply_zeroes(const Extent& extent, Epoch epoch) {
  const MutexLock lock(mutex_);
  BlockRange rest = blocks_of(extent);
  while (!rest.empty()) {
    bool is_expected = false;
    const BlockRange run = run_at(rest, epoch, &Expected::data, is_expected);
    CKPT_TRY(file_->zero(bytes_of(run, size_bytes_), !is_expected));
    if (!is_expected) {
      allocated_.remove(run);
      unwritten_.remove(run);
    }
    rest.first = run.end;
  }
  return {};
}

void BackupImage::applied(Epoch epoch) {
  const MutexLock lock(mutex_);
  expected_.erase(expected_.begin(), expected_.upper_bound(epoch));
}

Result<> BackupImage::sync() { return final_failure(file_->sync()); }

}  // namespace ckpt
