// SPDX-License-Identifier: Apache-2.0
// The epochs of one session that no checkpoint covers yet.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <set>
#include <vector>

#include "backupd/store/applier.h"
#include "backupd/store/backup_image.h"
#include "backupd/store/journal_file.h"

namespace ckpt {

// Void epochs pile up until a checkpoint covers them; beyond this a new session ships them as one.
inline constexpr size_t kPendingEpochsMax = 256;
static_assert(kPendingEpochsMax <= kCoveredEpochsMax);

// Lifetime:   image and journal directory must outlive it. Each epoch keeps a file open.
// Threads:    one at a time.
// Failure:    errors are the caller's to judge; after any, drop() is what can be done.
// Durability: nothing, until write_confirm() has returned.
class Pending {
 public:
  Pending(BackupImage& image, Directory& journal, uint64_t size_bytes)
      : image_(image), journal_(journal), size_bytes_(size_bytes) {}

  // Checks the payload, reserves its space in the image, appends it. kCorrupt, kInvalid, kNoSpace.
  Result<> receive(const EncodedBatch& batch);
  // What a checkpoint of that number covers.
  [[nodiscard]] std::vector<CoveredSegment> covered(Epoch number) const;
  // Appends the confirm record, its covered list filled in, to the file of its number, which has
  // this header if it has to be made; makes all that is covered durable. Returns where the record
  // stands.
  Result<JournalPosition> write_confirm(ConfirmRecord record, const JournalHeader& header);
  // Hands over the files of that checkpoint: it is confirmed.
  ConfirmedCheckpoint take(Epoch number);
  // All of it, in order, decoded.
  Result<> each(const std::function<Result<>(Batch&)>& act);
  // Writes all of it into the image, where nobody needs what is there: before the first checkpoint.
  Result<> apply();
  // Unlinks all files, and syncs the directory.
  Result<> drop();

  [[nodiscard]] uint64_t stored_bytes() const;
  // Of the epochs up to that number.
  [[nodiscard]] uint64_t stored_bytes(Epoch number) const;

 private:
  Result<JournalFile*> file_for(const JournalHeader& header);

  BackupImage& image_;
  Directory& journal_;
  const uint64_t size_bytes_;
  std::map<Epoch, std::unique_ptr<JournalFile>> files_;
  std::set<Epoch> names_;         // that were, or may have been, made
  bool is_entry_durable_ = true;  // of every file
};

}  // namespace ckpt
