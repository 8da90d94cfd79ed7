// SPDX-License-Identifier: Apache-2.0
// How a store is made, and found again.
#include <algorithm>
#include <array>

#include "backupd/store/recovery.h"
#include "backupd/store/store.h"
#include "common/saved_map.h"

namespace ckpt {
namespace {

constexpr char kJournalName[] = "journal";
constexpr char kAttachmentsName[] = "attachments";
constexpr char kVolumeName[] = "volume";
constexpr char kImageFileName[] = "backup.img";
// What the image had while it was a primary's.
constexpr char kImageStateName[] = "backup.img.ckpt";

// What an interrupted creation may leave, and what mkfs makes.
constexpr std::array<std::string_view, 6> kNamesBeforeVolume{
    kImageFileName, kJournalName, kAttachmentsName, "reserve", "volume.new", "lost+found"};

bool has(const std::vector<std::string>& names, std::string_view name) {
  return std::ranges::find(names, name) != names.end();
}

// Where a store is to be made there must be nothing else. Beside an image it is one whose `volume`
// was deleted.
Result<> check_names(const std::string& path, const std::vector<std::string>& names) {
  for (const std::string& name : names) {
    const bool is_known = std::ranges::find(kNamesBeforeVolume, name) != kNamesBeforeVolume.end();
    if (!is_known && has(names, kImageFileName)) {
      return fail(ErrorKind::kCorrupt, path + ": has " + kImageFileName + " and " + name +
                                           ", but `volume` is missing; not overwritten");
    }
    if (!is_known) {
      return fail(ErrorKind::kInvalid, path + ": is no store, and not empty: has " + name);
    }
  }
  return {};
}

// An empty one is over: it only was not removed.
bool is_state(Directory& store) {
  const auto state = store.subdirectory(kImageStateName, false);
  const auto names = state ? (*state)->list() : Unexpected(state.error());
  return names && has(*names, kVolumeName);
}

Result<> check_options(const StoreOptions& options) {
  if (options.volume.is_nil() || options.size_bytes == 0 || options.size_bytes > kDiskBytesMax) {
    return fail(ErrorKind::kInvalid, "store: a volume needs a UUID and a size of 1 B to 1 EiB");
  }
  return {};
}

}  // namespace

Store::Store(std::unique_ptr<Directory> directory, StoreOptions options)
    : directory_(std::move(directory)), options_(std::move(options)) {}

Result<std::unique_ptr<Store>> Store::open(std::unique_ptr<Directory> directory,
                                           const StoreOptions& options) {
  CKPT_TRY(check_options(options));
  std::unique_ptr<Store> store(new Store(std::move(directory), options));
  CKPT_ASSIGN(const auto names, store->directory_->list());
  CKPT_TRY(has(names, kVolumeName) ? store->recover(names) : store->create(names));
  return store;
}

// `volume` comes last: a creation that was interrupted is begun again.
Result<> Store::create(const std::vector<std::string>& names) {
  CKPT_TRY(check_names(directory_->path(), names));
  CKPT_ASSIGN(journal_, directory_->subdirectory(kJournalName, true));
  CKPT_ASSIGN(const auto files, journal_->list());
  if (!files.empty()) {
    return fail(ErrorKind::kCorrupt,
                directory_->path() + ": has a journal, but `volume` is missing; not overwritten");
  }
  CKPT_ASSIGN(attachments_folder_, directory_->subdirectory(kAttachmentsName, true));
  CKPT_ASSIGN(image_, BackupImage::create(*directory_, options_.size_bytes));
  CKPT_TRY(final_failure(directory_->sync()));
  StoreRecord record;
  record.volume = options_.volume;
  record.size_bytes = options_.size_bytes;
  CKPT_ASSIGN(volume_, VolumeFile::create(*directory_, record));
  return assemble({});
}

Result<> Store::recover(const std::vector<std::string>& names) {
  CKPT_ASSIGN(volume_, VolumeFile::open(*directory_));
  const StoreRecord record = volume_->record();
  CKPT_TRY(check_identity(record));
  if (record.is_handed_over() && !CKPT_PLANTED(no_fence_after_promotion)) {
    return assemble_promoted();
  }
  if (has(names, kImageStateName) && !record.promoted && is_state(*directory_)) {
    return fail(ErrorKind::kInvalid,
                directory_->path() +
                    ": its image is becoming a back-up, which was interrupted: "
                    "repeat ckpt-tool rejoin");
  }
  auto journal = directory_->subdirectory(kJournalName, false);
  if (!journal && journal.error().kind == ErrorKind::kNotFound) {
    return fail(ErrorKind::kCorrupt, directory_->path() + "/" + kJournalName + ": is missing");
  }
  CKPT_ASSIGN(journal_, std::move(journal));
  CKPT_ASSIGN(image_, BackupImage::open(*directory_, options_.size_bytes));
  CKPT_ASSIGN(auto recovered, recover_journal(*journal_, record, *image_));
  CKPT_TRY(load_stale(record));
  // Up to here nothing was changed: a damaged store is refused as it is.
  CKPT_TRY(remove_leftovers(recovered.leftovers));
  return assemble(std::move(recovered.unapplied));
}

// What of the last checkpoint's attachments is missing or damaged is said to who reads it: the disk
// is not worse for it.
Result<> Store::remove_leftovers(const std::vector<std::string>& of_journal) {
  CKPT_TRY(ckpt::remove_leftovers(*journal_, of_journal));
  CKPT_ASSIGN(attachments_folder_, directory_->subdirectory(kAttachmentsName, true));
  CKPT_TRY(final_failure(directory_->sync()));  // a copy may have left it out
  CKPT_ASSIGN(const auto names,
              Attachments::find_leftovers(*attachments_folder_, volume_->record().last));
  CKPT_TRY(Attachments::remove_leftovers(*attachments_folder_, names));
  if (!is_rejoined()) {
    (void)directory_->remove(kStaleName);  // most often there is none
  }
  return {};
}

Result<> Store::load_stale(const StoreRecord& record) {
  if (!record.rejoined || record.rejoined->bases.empty()) {
    return {};
  }
  auto runs = load_map(*directory_, kStaleName, record.volume, record.rejoined->stale,
                       block_count(record.size_bytes));
  if (!runs) {
    return fail(ErrorKind::kCorrupt,
                directory_->path() + "/" + kStaleName + ": " + runs.error().message() +
                    "; ckpt-tool rejoin --discard has all of the disk compared instead");
  }
  const MutexLock lock(session_mutex_);
  stale_ = std::move(*runs);
  return {};
}

Result<std::vector<BlockRange>> Store::stale(uint64_t from) {
  const MutexLock lock(session_mutex_);
  std::vector<BlockRange> page;
  auto run = std::ranges::partition_point(
      stale_, [from](const BlockRange& candidate) { return candidate.end <= from; });
  for (; run != stale_.end() && page.size() < kStaleMax; ++run) {
    page.push_back({std::max(run->first, from), run->end});
  }
  return page;
}

// The file need not go now: the next start removes it.
void Store::forget_stale() {
  stale_.clear();
  stale_.shrink_to_fit();
  (void)directory_->remove(kStaleName);
}

Result<> Store::assemble_promoted() {
  CKPT_ASSIGN(attachments_folder_, directory_->subdirectory(kAttachmentsName, true));
  attachments_ = std::make_unique<Attachments>(*attachments_folder_, options_.volume);
  return {};
}

Result<> Store::assemble(std::vector<ConfirmedCheckpoint> unapplied) {
  applier_ = std::make_unique<Applier>(
      Applier::Parts{*image_, *journal_, *volume_, latch_, options_.size_bytes});
  for (ConfirmedCheckpoint& checkpoint : unapplied) {
    applier_->enqueue(std::move(checkpoint));
  }
  const MutexLock lock(session_mutex_);
  attachments_ = std::make_unique<Attachments>(*attachments_folder_, options_.volume);
  pending_ = std::make_unique<Pending>(*image_, *journal_, options_.size_bytes);
  reserve_ = std::make_unique<Reserve>(*directory_, reserve_bytes(options_.size_bytes));
  return make_reserve();
}

Result<> Store::check_identity(const StoreRecord& record) const {
  if (record.volume != options_.volume) {
    return fail(ErrorKind::kInvalid, directory_->path() + ": is the store of volume " +
                                         record.volume.to_string() + ", not of " +
                                         options_.volume.to_string() +
                                         ": put each folder back under its own name");
  }
  if (record.size_bytes != options_.size_bytes) {
    return fail(ErrorKind::kInvalid, directory_->path() + ": is the store of a disk of " +
                                         std::to_string(record.size_bytes) + " bytes, not of " +
                                         std::to_string(options_.size_bytes));
  }
  return {};
}

}  // namespace ckpt
