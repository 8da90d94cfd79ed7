// SPDX-License-Identifier: Apache-2.0
#include "backupd/store/pending.h"

#include "backupd/store/latch.h"

namespace ckpt {

Result<JournalFile*> Pending::file_for(const JournalHeader& header) {
  auto found = files_.find(header.epoch);
  if (found == files_.end()) {
    if (names_.size() >= kPendingEpochsMax) {
      return fail(ErrorKind::kInvalid,
                  journal_.path() + ": too many epochs that no checkpoint covers");
    }
    names_.insert(header.epoch);
    is_entry_durable_ = false;
    CKPT_ASSIGN(auto created, JournalFile::create(journal_, header));
    found = files_.emplace(header.epoch, std::move(created)).first;
  }
  return found->second.get();
}

Result<> Pending::receive(const EncodedBatch& batch) {
  const BatchHeader& header = batch.header;
  CKPT_ASSIGN(const auto extents, decode_extents(header, batch.payload, size_bytes_));
  // The file first: drop() forgets the epochs that have one.
  CKPT_ASSIGN(JournalFile* const file,
              file_for({header.volume, header.timeline, header.epoch, header.incarnation}));
  CKPT_TRY(image_.reserve(header, extents));
  return file->append(batch);
}

std::vector<CoveredSegment> Pending::covered(Epoch number) const {
  std::vector<CoveredSegment> segments;
  for (const auto& [epoch, file] : files_) {
    if (epoch <= number) {
      segments.push_back(file->covered());
    }
  }
  return segments;
}

Result<JournalPosition> Pending::write_confirm(ConfirmRecord record, const JournalHeader& header) {
  const CheckpointId& id = record.checkpoint.id;
  record.covered = covered(id.number);
  CKPT_ASSIGN(JournalFile* const last, file_for(header));
  CKPT_ASSIGN(const JournalPosition position, last->append(record));
  if (CKPT_PLANTED(answer_before_confirm_durable)) {
    return position;
  }
  // One sync of the last file covers its batches and the record: what commits is `volume`, written
  // later.
  for (const auto& [epoch, file] : files_) {
    if (epoch <= id.number) {
      CKPT_TRY(file->sync());
    }
  }
  if (!is_entry_durable_ && !CKPT_PLANTED(journal_entry_not_synced)) {
    CKPT_TRY(final_failure(journal_.sync()));
    is_entry_durable_ = true;
  }
  return position;
}

ConfirmedCheckpoint Pending::take(Epoch number) {
  ConfirmedCheckpoint checkpoint{number, {}};
  while (!files_.empty() && files_.begin()->first <= number) {
    names_.erase(files_.begin()->first);
    checkpoint.files.push_back(std::move(files_.begin()->second));
    files_.erase(files_.begin());
  }
  return checkpoint;
}

Result<> Pending::each(const std::function<Result<>(Batch&)>& act) {
  BatchBuffer buffer;
  for (const auto& [epoch, file] : files_) {
    for (const auto& [sequence, batch] : file->batches()) {
      CKPT_TRY(file->read_into(buffer, batch, size_bytes_));
      CKPT_TRY(act(buffer.batch));
    }
  }
  return {};
}

Result<> Pending::apply() {
  return each([this](Batch& batch) { return image_.apply(batch); });
}

Result<> Pending::drop() {
  if (names_.empty()) {
    return {};
  }
  for (const Epoch epoch : names_) {
    files_.erase(epoch);
    image_.drop(epoch);
    auto removed = journal_.remove(journal_name(epoch));
    if (!removed && removed.error().kind != ErrorKind::kNotFound) {
      return removed;
    }
  }
  // So that what was dropped once never comes back, not even to be dropped again.
  CKPT_TRY(final_failure(journal_.sync()));
  names_.clear();
  is_entry_durable_ = true;
  return {};
}

uint64_t Pending::stored_bytes() const { return stored_bytes(Epoch{UINT64_MAX}); }

uint64_t Pending::stored_bytes(Epoch number) const {
  uint64_t total = 0;
  for (const auto& [epoch, file] : files_) {
    total += epoch <= number ? file->stored_bytes() : 0;
  }
  return total;
}

}  // namespace ckpt
