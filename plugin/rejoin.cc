// SPDX-License-Identifier: Apache-2.0
#include "plugin/rejoin.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>

#include "backupd/store/store.h"
#include "backupd/store/volume_file.h"
#include "common/boot.h"
#include "common/posix_file.h"
#include "common/shared_memory.h"
#include "plugin/backup_place.h"
#include "plugin/config.h"
#include "plugin/forget.h"
#include "plugin/local_volume.h"
#include "plugin/role_change.h"
#include "plugin/store_lock.h"

namespace ckpt {
namespace {

namespace fs = std::filesystem;

constexpr char kStoreImageName[] = "backup.img";

bool has_path(const std::string& path) {
  std::error_code ignored;
  return fs::exists(path, ignored);
}

bool is_same_file(const std::string& one, const std::string& other) {
  std::error_code ignored;
  return fs::equivalent(one, other, ignored);
}

Result<> lock_now(int fd, const std::string& path) {
  if (::flock(fd, LOCK_EX | LOCK_NB) == 0) {
    return {};
  }
  return errno == EWOULDBLOCK
             ? fail(ErrorKind::kBusy, path +
                                          " is in use by a server, a backupd or a tool: stop it "
                                          "for as long as this takes")
             : fail_errno(errno, "flock " + path);
}

// Without it a crash may leave the old name, or both.
Result<> sync_folder(const std::string& path) {
  CKPT_ASSIGN(const auto folder, PosixDirectory::open(path, false, RingUse{}));
  return folder->sync();
}

// Everything in it belongs to whoever has the shelf: backupd may be another user than who calls.
Result<> give_to_owner_of(const std::string& shelf, const std::string& folder) {
  struct stat owner {};
  if (::geteuid() != 0 || ::stat(shelf.c_str(), &owner) != 0) {
    return {};
  }
  std::vector<std::string> paths{folder};
  std::error_code error;
  for (const auto& entry : fs::recursive_directory_iterator(folder, error)) {
    paths.push_back(entry.path().string());
  }
  for (const std::string& path : paths) {
    if (::lchown(path.c_str(), owner.st_uid, owner.st_gid) != 0) {
      return fail_errno(errno, "chown " + path);
    }
  }
  return {};
}

Result<StoreRecord> read_store_record(const std::string& path) {
  CKPT_ASSIGN(const auto directory, PosixDirectory::open(path, false, RingUse{}));
  CKPT_ASSIGN(const auto file, VolumeFile::open(*directory));
  return file->record();
}

// A first copy that has begun, and of which there is no checkpoint yet: nothing that anybody could
// miss.
bool is_unfinished(const Result<StoreRecord>& store, const Uuid& volume) {
  return store && store->volume == volume && !store->last && !store->promoted && !store->rejoined;
}

// One image's way: what is open and locked, and what was found.
class Rejoin {
 public:
  explicit Rejoin(const RejoinOptions& options) : options_(options) {}
  Result<RejoinOutcome> run();
  Result<> check();

 private:
  Result<> look();
  [[nodiscard]] bool is_in_place() const;
  [[nodiscard]] bool is_done() const;
  Result<> check_target() const;
  Result<> move_unfinished_away();
  Result<> remove_unfinished() const;
  [[nodiscard]] Unexpected is_elsewhere() const;
  Result<> learn_superseded();
  Result<> ask_backup();
  Result<> record_superseded();
  Result<VolumeRecord> read_record() const;
  Result<> open_image();
  Result<> find_stale();
  Result<> check_record(const VolumeRecord& record) const;
  Result<> convert();
  Result<> convert_in_place();
  Result<> move_into_shelf();
  Result<std::unique_ptr<PosixDirectory>> make_draft(const std::string& path);
  Result<> link_image(const std::string& path) const;
  Result<> remove_primary();

  const RejoinOptions& options_;
  std::optional<StoreLock> store_;  // until all is done: backupd would find it half done
  VolumeRecord record_;
  std::string target_;
  std::string unfinished_;  // where a copy goes whose place the image takes
  std::unique_ptr<PosixFile> image_;
  std::unique_ptr<PosixDirectory> state_;
  std::unique_ptr<TmpfsMemoryStore> memory_;
  StartedVolume started_;  // refers to the three
  RejoinOutcome outcome_;
};

Result<RejoinOutcome> Rejoin::run() {
  CKPT_TRY(look());
  if (is_done()) {
    outcome_.was_rejoined = true;
    CKPT_TRY(remove_primary());
    return outcome_;
  }
  CKPT_TRY(check_target());
  CKPT_TRY(learn_superseded());
  CKPT_TRY(open_image());
  CKPT_TRY(find_stale());
  CKPT_TRY(options_.on_ready(outcome_.plan));
  CKPT_TRY(convert());
  if (auto removed = remove_primary(); !removed) {
    return fail(ErrorKind::kHalfway,
                "the back-up in " + target_ + " is made, and not yet usable: " +
                    removed.error().message() + ". Mend that, and repeat ckpt-tool rejoin");
  }
  return outcome_;
}

Result<> Rejoin::check() {
  CKPT_TRY(look());
  CKPT_TRY(check_target());
  struct stat image {};
  struct stat shelf {};
  const bool is_known = ::stat(options_.image_path.c_str(), &image) == 0 &&
                        ::stat(options_.shelf_path.c_str(), &shelf) == 0;
  return !is_known || image.st_dev == shelf.st_dev ? Result<>() : Result<>(is_elsewhere());
}

Unexpected Rejoin::is_elsewhere() const {
  return fail(
      ErrorKind::kInvalid,
      options_.image_path + " is on another file system than " + options_.shelf_path +
          ": give a --store on its own, or have backupd make a new back-up, which is a full "
          "copy");
}

Result<VolumeRecord> Rejoin::read_record() const {
  CKPT_ASSIGN(const auto state, PosixDirectory::open(options_.state_path, false, RingUse{}));
  CKPT_ASSIGN(const auto file, VolumeRecordFile::open(*state, system_random()));
  return file->get();
}

Result<> Rejoin::look() {
  CKPT_ASSIGN(record_, read_record());
  outcome_.volume = record_.volume;
  target_ = options_.shelf_path + "/" + record_.volume.to_string();
  unfinished_ = options_.shelf_path + "/.unfinished-" + record_.volume.to_string();
  outcome_.store_path = target_;
  struct stat shelf {};
  if (::stat(options_.shelf_path.c_str(), &shelf) != 0) {
    return fail_errno(errno, options_.shelf_path + " (the folder that backupd has as --store)");
  }
  return S_ISDIR(shelf.st_mode)
             ? Result<>()
             : Result<>(fail(ErrorKind::kInvalid, options_.shelf_path + " is no folder"));
}

// The image of a promoted back-up, whose folder is there.
bool Rejoin::is_in_place() const {
  return is_same_file(options_.image_path, target_ + "/" + kStoreImageName) &&
         is_same_file(fs::path(options_.image_path).parent_path().string(), target_);
}

// An earlier call got as far as that.
bool Rejoin::is_done() const {
  const auto store = read_store_record(target_);
  const bool is_ours = store && store->volume == record_.volume && !store->promoted;
  const bool is_moved = !has_path(options_.image_path) ||
                        is_same_file(options_.image_path, target_ + "/" + kStoreImageName);
  return record_.superseded && is_ours && is_moved;
}

Result<> Rejoin::check_target() const {
  struct stat image {};
  if (::stat(options_.image_path.c_str(), &image) != 0) {
    return fail_errno(errno, options_.image_path);
  }
  if (!S_ISREG(image.st_mode)) {
    return fail(ErrorKind::kInvalid,
                options_.image_path +
                    " is no regular file, and a back-up is one: have backupd make a new back-up, "
                    "which is a full copy");
  }
  if (!has_path(target_) || is_in_place() ||
      is_unfinished(read_store_record(target_), record_.volume)) {
    return {};
  }
  return fail(ErrorKind::kInvalid, target_ +
                                       " is there already, and has a checkpoint, or is something "
                                       "else: if this image is to take its place, stop backupd "
                                       "and move it away");
}

// Who is served must not be taken for history.
Result<> Rejoin::learn_superseded() {
  if (record_.superseded) {
    return {};
  }
  if (auto asked = ask_backup(); !asked) {
    CKPT_ASSIGN(record_, read_record());
    if (record_.superseded) {
      return {};
    }
    const bool may_be = asked.error().kind == ErrorKind::kUnreachable || record_.giving_up;
    return options_.force && may_be ? record_superseded() : asked;
  }
  return fail(ErrorKind::kInvalid, options_.image_path + " is the primary: its back-up at " +
                                       describe_place(record_.store_place, options_.state_path) +
                                       " was not promoted. Serve it as before");
}

// As a server would: a back-up that was promoted says so then, and it is on record.
Result<> Rejoin::ask_backup() {
  CKPT_ASSIGN(const LocalOptions options, options_without_server(options_));
  CKPT_ASSIGN(const auto local, LocalVolume::open(options));
  const VolumeStatus status = local->volume().status();
  CKPT_TRY(local->close());
  const bool is_reached = status.store && status.store->state == "connected";
  return is_reached ? Result<>()
                    : fail(ErrorKind::kUnreachable,
                           "the back-up of " + options_.image_path + ", " +
                               describe_place(record_.store_place, options_.state_path) +
                               ", is not reached: nobody knows whether it was promoted. If it was, "
                               "give --force");
}

Result<> Rejoin::record_superseded() {
  CKPT_ASSIGN(const auto state, PosixDirectory::open(options_.state_path, false, RingUse{}));
  CKPT_TRY(lock_now(state->fd(), options_.state_path));
  CKPT_ASSIGN(const auto file, VolumeRecordFile::open(*state, system_random()));
  CKPT_TRY(file->change([](VolumeRecord& record) { record.superseded = true; }));
  record_ = file->get();
  return {};
}

Result<> Rejoin::open_image() {
  CKPT_ASSIGN(image_, PosixFile::open(options_.image_path, O_RDWR, RingUse{}));
  CKPT_TRY(lock_now(image_->fd(), options_.image_path));
  CKPT_ASSIGN(state_, PosixDirectory::open(options_.state_path, false, RingUse{}));
  return lock_now(state_->fd(), options_.state_path);
}

// As every start finds out: what the process or the machine knew when it died.
Result<> Rejoin::find_stale() {
  CKPT_ASSIGN(memory_, TmpfsMemoryStore::open());
  const Surroundings surroundings{*image_,         *state_,        *memory_,         system_clock(),
                                  system_random(), this_boot_id(), this_boot_time(), false};
  StartOptions start;
  start.offline = true;
  CKPT_ASSIGN(started_, start_volume(surroundings, start));
  record_ = started_.record->get();
  CKPT_TRY(check_record(record_));
  outcome_.plan.stale_bytes = started_.disk->epochs.current().written.count() * kBlockBytes;
  if (!options_.discard) {
    outcome_.plan.base = record_.last;
  }
  return {};
}

Result<> Rejoin::check_record(const VolumeRecord& record) const {
  if (record.suspect) {
    return fail(ErrorKind::kInvalid,
                options_.image_path +
                    ": a sync of it has failed, so what is on its disk is not known: have backupd "
                    "make a new back-up, which is a full copy");
  }
  return record.last || options_.discard
             ? Result<>()
             : Result<>(fail(ErrorKind::kInvalid,
                             options_.image_path +
                                 " has no checkpoint from which it differs by what is known: with "
                                 "--discard all of the disk is compared"));
}

Result<> Rejoin::convert() { return is_in_place() ? convert_in_place() : move_into_shelf(); }

// With its record the folder is a back-up's again: all else is there before.
Result<> Rejoin::convert_in_place() {
  CKPT_ASSIGN(StoreLock lock, StoreLock::reach(target_));
  CKPT_TRY(lock.take(false));
  const auto& folder = store_.emplace(std::move(lock)).directory;
  CKPT_ASSIGN(const auto file, VolumeFile::open(*folder));
  CKPT_TRY(folder->subdirectory("journal", true));
  CKPT_ASSIGN(
      const StoreRecord store,
      save_stale(*folder, record_, started_.disk->epochs.current().written, !options_.discard));
  CKPT_TRY(folder->sync());
  CKPT_TRY(give_to_owner_of(options_.shelf_path, target_));
  return file->update([&store](StoreRecord& record) { record = store; });
}

// Under another name until it is whole: backupd looks for volumes there all the time.
Result<> Rejoin::move_into_shelf() {
  const std::string draft = options_.shelf_path + "/.rejoin-" + record_.volume.to_string();
  CKPT_ASSIGN(const auto folder, make_draft(draft));
  CKPT_ASSIGN(
      const StoreRecord store,
      save_stale(*folder, record_, started_.disk->epochs.current().written, !options_.discard));
  CKPT_TRY(VolumeFile::create(*folder, store));
  CKPT_TRY(link_image(draft + "/" + kStoreImageName));
  CKPT_TRY(folder->sync());
  CKPT_TRY(give_to_owner_of(options_.shelf_path, draft));
  CKPT_TRY(has_path(target_) ? move_unfinished_away() : Result<>());
  if (std::rename(draft.c_str(), target_.c_str()) != 0) {
    return fail_errno(errno, "rename " + draft + " to " + target_);
  }
  return {};
}

// The new primary was faster, and has begun a full copy. It asks for its back-up again, and finds
// this one.
Result<> Rejoin::move_unfinished_away() {
  CKPT_ASSIGN(StoreLock lock, StoreLock::reach(target_));
  CKPT_TRY(lock.take(true));
  const auto& folder = store_.emplace(std::move(lock)).directory;
  CKPT_ASSIGN(const auto file, VolumeFile::open(*folder));
  if (!is_unfinished(file->record(), record_.volume)) {
    return fail(ErrorKind::kInvalid, target_ + " has a checkpoint by now: it is the back-up");
  }
  CKPT_TRY(remove_unfinished());
  if (std::rename(target_.c_str(), unfinished_.c_str()) != 0) {
    return fail_errno(errno, "rename " + target_ + " to " + unfinished_);
  }
  return {};
}

Result<> Rejoin::remove_unfinished() const {
  std::error_code error;
  fs::remove_all(unfinished_, error);
  return error ? fail_errno(error.value(), "remove " + unfinished_) : Result<>();
}

// What an interrupted call left in it is made anew.
Result<std::unique_ptr<PosixDirectory>> Rejoin::make_draft(const std::string& path) {
  CKPT_ASSIGN(auto folder, PosixDirectory::open(path, true, RingUse{}));
  for (const char* name : {kStaleName, "stale.new", "volume", "volume.new", kStoreImageName}) {
    auto removed = folder->remove(name);
    if (!removed && removed.error().kind != ErrorKind::kNotFound) {
      return Unexpected(removed.error());
    }
  }
  CKPT_TRY(folder->subdirectory("journal", true));
  CKPT_TRY(folder->subdirectory("attachments", true));
  return folder;
}

Result<> Rejoin::link_image(const std::string& path) const {
  if (::link(options_.image_path.c_str(), path.c_str()) == 0) {
    return {};
  }
  return errno == EXDEV ? is_elsewhere()
                        : fail_errno(errno, "link " + options_.image_path + " to " + path);
}

// The state goes last: as long as it is there nobody serves the image, and this can be repeated. A
// call that was killed may have given the folder its name, and not synced that.
Result<> Rejoin::remove_primary() {
  CKPT_TRY(remove_unfinished());
  CKPT_TRY(sync_folder(options_.shelf_path));
  started_ = {};
  image_.reset();
  state_.reset();
  if (!is_in_place() && has_path(options_.image_path)) {
    if (::unlink(options_.image_path.c_str()) != 0) {
      return fail_errno(errno, "unlink " + options_.image_path);
    }
    CKPT_TRY(sync_folder(directory_of(options_.image_path)));
  }
  const auto agree = [](const std::string& /*remote*/) { return true; };
  CKPT_TRY(forget_volume(options_.state_path, options_.image_path, agree));
  return sync_folder(directory_of(options_.state_path));
}

}  // namespace

Result<LocalOptions> options_without_server(const RejoinOptions& options) {
  LocalOptions opened;
  opened.image_path = options.image_path;
  opened.state_path = options.state_path;
  opened.raw = true;
  opened.volume.image_path = options.image_path;
  opened.volume.start.offline = true;
  CKPT_ASSIGN(opened.store_place, parse_backup_option(options.backup));
  opened.is_place_said = !opened.store_place.empty();
  opened.tls = options.tls;
  return opened;
}

Result<RejoinOutcome> rejoin(const RejoinOptions& options) { return Rejoin(options).run(); }

Result<> check_can_rejoin(const RejoinOptions& options) { return Rejoin(options).check(); }

Result<> discard_bases(const std::string& store_path) {
  CKPT_ASSIGN(StoreLock lock, StoreLock::reach(store_path));
  CKPT_TRY(lock.take(false));
  CKPT_ASSIGN(const auto file, VolumeFile::open(*lock.directory));
  if (!file->record().rejoined) {
    return fail(ErrorKind::kInvalid,
                store_path + " is not of an image that rejoined, or has a checkpoint again");
  }
  return file->update([](StoreRecord& record) { record.rejoined->bases.clear(); });
}

}  // namespace ckpt
