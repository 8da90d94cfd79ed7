// SPDX-License-Identifier: Apache-2.0
// What is done with a journal that an earlier process left.
//
// Format: docs/store-format.md, "Recovery"
#pragma once

#include <string>
#include <vector>

#include "backupd/store/applier.h"

namespace ckpt {

struct RecoveredJournal {
  std::vector<ConfirmedCheckpoint> unapplied;  // oldest first
  std::vector<std::string> leftovers;          // names of files that are pending or applied
};

// Reads and checks all that is confirmed and not applied, and tells the image what to expect.
// Changes nothing. kCorrupt names file and offset.
Result<RecoveredJournal> recover_journal(Directory& journal, const StoreRecord& record,
                                         BackupImage& image);

// Unlinks them and syncs the directory. Harmless to repeat.
Result<> remove_leftovers(Directory& journal, const std::vector<std::string>& names);

}  // namespace ckpt
