// SPDX-License-Identifier: Apache-2.0
#include "backupd/store/recovery.h"

#include <algorithm>
#include <set>

#include "backupd/store/latch.h"

namespace ckpt {
namespace {

// One checkpoint as its confirm record has it, and where the one before stands.
struct Recovered {
  ConfirmedCheckpoint checkpoint;
  JournalPosition previous;
};

Unexpected corrupt(const Directory& journal, Epoch epoch, const std::string& what) {
  return fail(ErrorKind::kCorrupt, journal.path() + "/" + journal_name(epoch) + ": " + what);
}

class Recovery {
 public:
  Recovery(Directory& journal, const StoreRecord& record, BackupImage& image)
      : journal_(journal), record_(record), image_(image) {}

  // From the last checkpoint back to the first that is not applied.
  Result<std::vector<ConfirmedCheckpoint>> walk() {
    std::vector<ConfirmedCheckpoint> found;
    JournalPosition position = record_.confirmed;
    while (position.segment > record_.applied) {
      auto recovered = read_checkpoint(position);
      if (!recovered && CKPT_PLANTED(truncate_at_bad_crc_below_slot)) {
        break;
      }
      if (!recovered) {
        return Unexpected(recovered.error());
      }
      CKPT_PROBE(confirmed_and_not_applied_before_a_crash);
      found.push_back(std::move(recovered->checkpoint));
      position = recovered->previous;
    }
    std::ranges::reverse(found);
    return found;
  }

 private:
  Result<std::unique_ptr<JournalFile>> open(Epoch epoch) {
    auto file = JournalFile::open(journal_, record_.volume, epoch);
    if (!file && file.error().kind == ErrorKind::kNotFound) {
      return corrupt(journal_, epoch, "is missing, though it is confirmed and not applied");
    }
    return file;
  }

  Result<> load(JournalFile& file, uint64_t end_offset) {
    return file.load(end_offset, record_.size_bytes,
                     [this](const Batch& batch) { image_.expect(batch); });
  }

  Result<> check_covered(const JournalFile& file, const CoveredSegment& covered) {
    if (file.covered() != covered) {
      return corrupt(journal_, covered.epoch, "its batches are not those that were confirmed");
    }
    return {};
  }

  Result<> check_confirm(const ConfirmRecord& confirm, const JournalFile& file) {
    const bool is_own = !confirm.covered.empty() && confirm.covered.back().epoch == file.epoch();
    if (confirm.checkpoint.id.number != file.epoch() || is_own == file.batches().empty()) {
      return corrupt(journal_, file.epoch(), "its confirm record is of another checkpoint");
    }
    return is_own ? check_covered(file, confirm.covered.back()) : Result<>();
  }

  Result<Recovered> read_checkpoint(const JournalPosition& position) {
    CKPT_ASSIGN(auto last, open(position.segment));
    CKPT_TRY(load(*last, position.offset));
    CKPT_ASSIGN(const ConfirmRecord confirm, last->read_confirm(position));
    CKPT_TRY(check_confirm(confirm, *last));
    Recovered recovered{{position.segment, {}}, confirm.previous};
    for (const CoveredSegment& covered : confirm.covered) {
      if (covered.epoch < position.segment) {
        CKPT_PROBE(checkpoint_of_several_epochs_was_recovered);
        CKPT_ASSIGN(auto file, open(covered.epoch));
        CKPT_TRY(load(*file, covered.end_offset));
        CKPT_TRY(check_covered(*file, covered));
        recovered.checkpoint.files.push_back(std::move(file));
      }
    }
    recovered.checkpoint.files.push_back(std::move(last));
    return recovered;
  }

  Directory& journal_;
  const StoreRecord& record_;
  BackupImage& image_;
};

std::set<Epoch> epochs_of(const std::vector<ConfirmedCheckpoint>& checkpoints) {
  std::set<Epoch> epochs;
  for (const ConfirmedCheckpoint& checkpoint : checkpoints) {
    for (const auto& file : checkpoint.files) {
      epochs.insert(file->epoch());
    }
  }
  return epochs;
}

}  // namespace

Result<RecoveredJournal> recover_journal(Directory& journal, const StoreRecord& record,
                                         BackupImage& image) {
  RecoveredJournal recovered;
  CKPT_ASSIGN(recovered.unapplied, Recovery(journal, record, image).walk());
  const std::set<Epoch> needed = epochs_of(recovered.unapplied);
  const Epoch last = record.last ? record.last->id.number : Epoch{};
  CKPT_ASSIGN(const auto names, journal.list());
  for (const std::string& name : names) {
    const Epoch epoch = parse_journal_name(name);
    if (epoch.value == 0 || needed.contains(epoch)) {
      continue;  // a name that is none of ours is left alone
    }
    if (epoch > record.applied && epoch <= last && !CKPT_PLANTED(truncate_at_bad_crc_below_slot)) {
      return corrupt(journal, epoch, "belongs to no checkpoint");
    }
    CKPT_PROBE(journal_file_was_left);
    recovered.leftovers.push_back(name);
  }
  return recovered;
}

Result<> remove_leftovers(Directory& journal, const std::vector<std::string>& names) {
  for (const std::string& name : names) {
    CKPT_TRY(journal.remove(name));
  }
  // Also when there are none: an earlier attempt may have unlinked them and not come to this.
  return final_failure(journal.sync());
}

}  // namespace ckpt
