// SPDX-License-Identifier: Apache-2.0
#include "backupd/store/volume_file.h"

namespace ckpt {
namespace {

constexpr char kVolumeFileName[] = "volume";

}  // namespace

VolumeFile::VolumeFile(Directory& directory, Slots slots, StoreRecord record)
    : directory_(directory), slots_(std::move(slots)), record_(std::move(record)) {}

Result<std::unique_ptr<VolumeFile>> VolumeFile::create(Directory& directory,
                                                       const StoreRecord& record) {
  CKPT_ASSIGN(Slots slots, Slots::create(directory, kVolumeFileName, encode_store_record(record)));
  return std::unique_ptr<VolumeFile>(new VolumeFile(directory, std::move(slots), record));
}

Result<std::unique_ptr<VolumeFile>> VolumeFile::open(Directory& directory) {
  CKPT_ASSIGN(Slots slots, Slots::open(directory, kVolumeFileName));
  auto record = decode_store_record(slots.payload());
  if (!record) {
    return within(directory.path() + "/" + kVolumeFileName, record.error());
  }
  return std::unique_ptr<VolumeFile>(
      new VolumeFile(directory, std::move(slots), std::move(*record)));
}

Result<uint64_t> VolumeFile::size_of_disk(Directory& directory, std::optional<uint64_t> of_new) {
  auto file = open(directory);
  if (file) {
    return (*file)->record().size_bytes;
  }
  const bool may_be_made = of_new && file.error().kind == ErrorKind::kNotFound;
  return may_be_made ? Result<uint64_t>(*of_new) : Unexpected(file.error());
}

StoreRecord VolumeFile::record() const {
  const MutexLock lock(record_mutex_);
  return record_;
}

Result<> VolumeFile::update(const std::function<void(StoreRecord&)>& change,
                            const std::function<void()>& on_durable) {
  const MutexLock slots_lock(slots_mutex_);
  const StoreRecord before = record();
  StoreRecord after = before;
  change(after);
  if (auto written = slots_.write(encode_store_record(after)); !written) {
    if (written.error().kind == ErrorKind::kNoSpace) {
      CKPT_TRY(take_back(before));
    }
    return Unexpected(written.error());
  }
  if (on_durable) {
    on_durable();
  }
  const MutexLock record_lock(record_mutex_);
  record_ = std::move(after);
  return {};
}

// A copy of the new generation may stand already. The caller is about to drop what it refers to, so
// it is superseded by the record from before, in a generation of its own, first.
Result<> VolumeFile::take_back(const StoreRecord& before) {
  auto again = Slots::open(directory_, kVolumeFileName);
  Result<> written =
      again ? again->write(encode_store_record(before)) : Result<>(Unexpected(again.error()));
  if (!written) {
    Error error = written.error();
    error.kind = ErrorKind::kIo;  // the outcome is unknown now: no longer one to recover from
    return within(directory_.path() + "/" + kVolumeFileName + " after it found no space", error);
  }
  slots_ = std::move(*again);
  return {};
}

}  // namespace ckpt
