// SPDX-License-Identifier: Apache-2.0
#include "plugin/forget.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <span>

#include "backupd/store/volume_file.h"
#include "common/clock.h"
#include "common/posix_file.h"
#include "common/shared_memory.h"
#include "plugin/backup_place.h"
#include "plugin/volume_record.h"

namespace ckpt {
namespace {

// Of the state directory and of the store: docs/ckpt-formats.pod. What is not here is not ours.
constexpr std::array<const char*, 9> kStateFiles{"regions",       "regions.new",  "saved-map",
                                                 "saved-map.new", "preserved",    "events",
                                                 "events.new",    "control.sock", "restore.lock"};
constexpr std::array<const char*, 3> kStoreFiles{"backup.img", "reserve", "volume.new"};
constexpr const char* kVolume = "volume";  // says what the folder is: goes last

Result<> lock(int fd, const std::string& path) {
  if (::flock(fd, LOCK_EX | LOCK_NB) == 0) {
    return {};
  }
  return errno == EWOULDBLOCK
             ? fail(ErrorKind::kBusy, path + " is in use by a server or another tool: stop it")
             : fail_errno(errno, "flock " + path);
}

Result<> remove_file(Directory& directory, const std::string& name) {
  auto removed = directory.remove(name);
  return removed || removed.error().kind == ErrorKind::kNotFound ? Result<>() : removed;
}

Result<> remove_files(Directory& directory, std::span<const char* const> names) {
  for (const char* name : names) {
    CKPT_TRY(remove_file(directory, name));
  }
  return {};
}

// One forgetting: what it has open and locked, and what it left.
class Forget {
 public:
  Forget(std::string state_path, std::string image_path)
      : state_path_(std::move(state_path)), image_path_(std::move(image_path)) {}
  Result<ForgetOutcome> run(const ForgetQuestion& agree);

 private:
  Result<> open_state();
  Result<> look();
  Result<> open_store();
  Result<> remove_store();
  Result<> remove_maps();
  Result<> remove_state();
  Result<> remove_all(Directory& parent, const std::string& name);
  void remove_folder(const std::string& path);

  const std::string state_path_;
  const std::string image_path_;
  std::string store_path_;
  std::string maps_name_;
  Uuid volume_;
  UniqueFd image_;  // only its lock
  std::unique_ptr<PosixDirectory> state_;
  std::unique_ptr<PosixDirectory> store_;  // nothing: there is none
  ForgetOutcome outcome_;
};

Result<ForgetOutcome> Forget::run(const ForgetQuestion& agree) {
  CKPT_TRY(open_state());
  CKPT_TRY(look());
  CKPT_TRY(open_store());
  if (!agree(outcome_.remote_left)) {
    return fail(ErrorKind::kVoid, "not forgotten: nothing changed");
  }
  if (store_ != nullptr) {
    CKPT_TRY(remove_store());
  }
  CKPT_TRY(remove_maps());
  CKPT_TRY(remove_state());
  return outcome_;
}

Result<> Forget::open_state() {
  CKPT_ASSIGN(state_, PosixDirectory::open(state_path_, false, RingUse{}));
  CKPT_TRY(lock(state_->fd(), state_path_));
  image_.reset(::open(image_path_.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  return image_ ? lock(image_.get(), image_path_) : Result<>();
}

// A damaged record does not say where a store elsewhere is: then only the one in here is removed.
Result<> Forget::look() {
  store_path_ = state_path_ + "/store";
  auto record = VolumeRecordFile::open(*state_, system_random());
  if (!record) {
    return record.error().kind == ErrorKind::kCorrupt ? Result<>() : Unexpected(record.error());
  }
  const VolumeRecord found = (*record)->get();
  volume_ = found.volume;
  maps_name_ = found.maps_name;
  if (is_remote_place(found.store_place)) {
    outcome_.remote_left = describe_place(found.store_place, state_path_);
  } else {
    store_path_ = folder_of_place(found.store_place, state_path_);
  }
  return {};
}

Result<> Forget::open_store() {
  auto directory = PosixDirectory::open(store_path_, false, RingUse{});
  if (!directory) {
    return directory.error().kind == ErrorKind::kNotFound ? Result<>()
                                                          : Unexpected(directory.error());
  }
  store_ = std::move(*directory);
  CKPT_TRY(lock(store_->fd(), store_path_));
  const auto file = VolumeFile::open(*store_);
  if (file && !volume_.is_nil() && (*file)->record().volume != volume_) {
    return fail(ErrorKind::kInvalid, store_path_ + " is the back-up of another volume, " +
                                         (*file)->record().volume.to_string() +
                                         ": nothing was removed");
  }
  const bool is_promoted = file ? (*file)->record().promoted
                                : ::access((store_path_ + "/backup.img.ckpt").c_str(), F_OK) == 0;
  if (is_promoted) {
    outcome_.left.push_back(store_path_);  // its image is a disk of its own
    store_.reset();
  }
  return {};
}

Result<> Forget::remove_store() {
  CKPT_TRY(remove_all(*store_, "journal"));
  CKPT_TRY(remove_all(*store_, "attachments"));
  CKPT_TRY(remove_files(*store_, kStoreFiles));
  CKPT_TRY(remove_file(*store_, kVolume));
  CKPT_TRY(store_->sync());
  remove_folder(store_path_);
  return {};
}

Result<> Forget::remove_maps() {
  if (maps_name_.empty()) {
    return {};
  }
  CKPT_ASSIGN(const auto memory, TmpfsMemoryStore::open());
  auto removed = memory->remove(maps_name_);
  return removed || removed.error().kind == ErrorKind::kNotFound ? Result<>() : removed;
}

Result<> Forget::remove_state() {
  CKPT_TRY(remove_files(*state_, kStateFiles));
  CKPT_TRY(state_->sync());
  CKPT_TRY(remove_file(*state_, kVolume));
  CKPT_TRY(state_->sync());
  remove_folder(state_path_);
  return {};
}

// A folder that is all ours.
Result<> Forget::remove_all(Directory& parent, const std::string& name) {
  auto folder = parent.subdirectory(name, false);
  if (!folder) {
    return folder.error().kind == ErrorKind::kNotFound ? Result<>() : Unexpected(folder.error());
  }
  CKPT_ASSIGN(const auto names, (*folder)->list());
  for (const std::string& file : names) {
    CKPT_TRY(remove_file(**folder, file));
  }
  remove_folder((*folder)->path());
  return {};
}

// One that holds what is not ours stays.
void Forget::remove_folder(const std::string& path) {
  if (::rmdir(path.c_str()) != 0) {
    outcome_.left.push_back(path);
  }
}

}  // namespace

Result<ForgetOutcome> forget_volume(const std::string& state_path, const std::string& image_path,
                                    const ForgetQuestion& agree) {
  return Forget(state_path, image_path).run(agree);
}

}  // namespace ckpt
