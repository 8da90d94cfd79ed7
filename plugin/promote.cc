// SPDX-License-Identifier: Apache-2.0
#include "plugin/promote.h"

#include <fcntl.h>
#include <sys/file.h>

#include <cerrno>
#include <filesystem>

#include "backupd/store/store.h"
#include "backupd/store/volume_file.h"
#include "common/fd.h"
#include "common/posix_file.h"
#include "plugin/local_volume.h"
#include "plugin/role_change.h"
#include "plugin/store_lock.h"

namespace ckpt {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kEmbeddedEnd = ".ckpt/store";

bool is_there(const std::string& path) {
  std::error_code ignored;
  return fs::exists(path, ignored);
}

// The image that an embedded store is of, if that is there: it needs a rollback and no fail-over.
Result<> check_primary_gone(const std::string& store_path) {
  if (!store_path.ends_with(kEmbeddedEnd)) {
    return {};
  }
  const std::string image = store_path.substr(0, store_path.size() - kEmbeddedEnd.size());
  return is_there(image)
             ? fail(ErrorKind::kInvalid,
                    image + ", of which this is the back-up, is there: ckpt-tool rollback " +
                        image + " brings it back to the checkpoint (or --force)")
             : Result<>();
}

Result<StoreRecord> read_record(Directory& directory) {
  CKPT_ASSIGN(const auto file, VolumeFile::open(directory));
  return file->record();
}

// Nobody may serve the image while it is written: one that was half promoted, by a server that was
// told to.
Result<UniqueFd> lock_image(const std::string& image) {
  UniqueFd fd(::open(image.c_str(), O_RDONLY | O_CLOEXEC));
  if (!fd) {
    return fail_errno(errno, image);
  }
  return ::flock(fd.get(), LOCK_EX | LOCK_NB) == 0
             ? Result<UniqueFd>(std::move(fd))
             : fail(ErrorKind::kBusy, image + " is in use by a server");
}

// The image is the checkpoint that is returned, and no session begins any more.
Result<StoreRecord> promote_store(std::unique_ptr<Directory> directory, StoreRecord record,
                                  const std::string& path) {
  StoreOptions options;
  options.volume = record.volume;
  options.size_bytes = record.size_bytes;
  options.address = path;
  options.clock = &system_clock();
  CKPT_ASSIGN(const auto store, Store::open(std::move(directory), options));
  CKPT_ASSIGN(record.last, store->promote(system_random().uuid()));
  record.forks = store->record().forks;
  return record;
}

// An error after which the store may be promoted, or not.
Unexpected judge(const Error& error, const std::string& path) {
  const auto directory = PosixDirectory::open(path, false, RingUse{});
  const auto record = directory ? read_record(**directory) : Unexpected(directory.error());
  return record && record->promoted
             ? fail(ErrorKind::kHalfway, path +
                                             " is promoted, and its old primary refused, but not "
                                             "ready to be served: " +
                                             error.message() + ". Mend that, and promote it again")
             : Unexpected(error);
}

// A volume that was opened and closed: its stop leaves all that the next start looks for.
Result<> make_state(const std::string& image, const StoreRecord& store) {
  LocalOptions options;
  options.image_path = image;
  options.has_backup = false;
  options.raw = true;
  options.volume.image_path = image;
  options.volume.start.origin = origin_of(store);
  options.volume.start.offline = true;
  CKPT_ASSIGN(const auto local, LocalVolume::open(options));
  return local->close();
}

// Of an image that was promoted before.
Result<> check_state(const std::string& state, const StoreRecord& store) {
  CKPT_ASSIGN(const auto directory, PosixDirectory::open(state, false, RingUse{}));
  CKPT_ASSIGN(const auto file, VolumeRecordFile::open(*directory, system_random()));
  return file->get().volume == store.volume
             ? Result<>()
             : Result<>(fail(ErrorKind::kInvalid,
                             state + " is of another volume: move it away, and promote again"));
}

Result<> finish(const std::string& image, const StoreRecord& store) {
  const std::string state = default_state_path(image);
  return is_there(state + "/volume") ? check_state(state, store) : make_state(image, store);
}

Result<> check_promotable(const StoreRecord& record, const std::string& path) {
  if (record.rejoined) {
    return fail(ErrorKind::kNotFound,
                path +
                    " has no checkpoint yet: its image is what the old primary had when it "
                    "rejoined, with what was in no checkpoint. If that is all there is, copy it "
                    "(cp --sparse=always)");
  }
  return record.last ? Result<>()
                     : fail(ErrorKind::kNotFound,
                            path + " has no checkpoint yet: there is nothing to promote");
}

Result<> agree(const PromoteOptions& options, const StoreRecord& record) {
  CKPT_TRY(check_promotable(record, options.store_path));
  if (record.promoted) {
    return {};
  }
  CKPT_TRY(options.force ? Result<>() : check_primary_gone(options.store_path));
  return options.on_ready(*record.last);
}

// The lock is had last where it cuts a primary off that may be well: people have agreed then, and
// it is fenced. Else first: it is refused while the primary is connected.
Result<StoreLock> lock_agreed(const PromoteOptions& options) {
  const bool cuts_off = options.force || options.fences;
  CKPT_ASSIGN(StoreLock lock, StoreLock::reach(options.store_path, options.backupd));
  CKPT_TRY(cuts_off ? Result<>() : lock.take(false));
  CKPT_ASSIGN(const StoreRecord record, read_record(*lock.directory));
  CKPT_TRY(agree(options, record));
  auto taken = cuts_off ? lock.take(true) : Result<>();
  if (!taken && options.fences && !record.promoted) {
    return fail(taken.error().kind, "the old primary was fenced, and nothing is promoted yet: " +
                                        taken.error().message());
  }
  CKPT_TRY(taken);
  return lock;
}

}  // namespace

Result<bool> is_promoted(const std::string& store_path) {
  CKPT_ASSIGN(const auto directory, PosixDirectory::open(store_path, false, RingUse{}));
  CKPT_ASSIGN(const StoreRecord record, read_record(*directory));
  return record.promoted;
}

Result<PromoteOutcome> promote(const PromoteOptions& options) {
  const std::string& path = options.store_path;
  const std::string image = path + "/backup.img";
  CKPT_ASSIGN(StoreLock lock, lock_agreed(options));
  CKPT_ASSIGN(const StoreRecord before, read_record(*lock.directory));
  CKPT_TRY(check_promotable(before, path));
  StoreRecord after = before;
  if (!before.is_handed_over()) {
    CKPT_ASSIGN(const UniqueFd image_lock, lock_image(image));
    auto promoted = promote_store(std::move(lock.directory), before, path);
    if (!promoted) {
      return judge(promoted.error(), path);
    }
    after = std::move(*promoted);
  }
  lock.directory.reset();
  if (auto finished = finish(image, after); !finished) {
    return judge(finished.error(), path);
  }
  return PromoteOutcome{before.volume, *after.last, image, before.promoted};
}

}  // namespace ckpt
