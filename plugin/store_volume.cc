// SPDX-License-Identifier: Apache-2.0
#include "plugin/store_volume.h"

#include <fcntl.h>
#include <sys/file.h>

#include <cerrno>

#include "backupd/store/store.h"
#include "common/posix_file.h"
#include "plugin/checkpoint_name.h"

namespace ckpt {
namespace {

class StoreVolume : public VolumeApi {
 public:
  explicit StoreVolume(std::string path) : path_(std::move(path)) {}

  Result<> look();
  VolumeStatus status() override;
  Result<std::vector<CheckpointInfo>> checkpoints() override { return kept(); }
  Result<> export_checkpoint(const std::string& id, ExportSink& sink) override;

  Result<CheckpointOutcome> checkpoint(const CheckpointRequest& /*request*/) override {
    return no_primary();
  }
  Result<RollbackOutcome> roll_back(const RollbackRequest& /*request*/,
                                    const Progress& /*progress*/) override {
    return no_primary();
  }
  Result<VerifyOutcome> verify(const Progress& /*progress*/) override { return no_primary(); }
  Result<> accept() override { return no_primary(); }

 private:
  [[nodiscard]] std::vector<CheckpointInfo> kept() const;
  [[nodiscard]] Unexpected no_primary() const;
  Result<std::unique_ptr<Store>> open_store();

  const std::string path_;
  StoreRecord record_;
};

Result<> StoreVolume::look() {
  CKPT_ASSIGN(auto directory, PosixDirectory::open(path_, false, RingUse{}));
  CKPT_ASSIGN(auto file, VolumeFile::open(*directory));
  record_ = file->record();
  return {};
}

std::vector<CheckpointInfo> StoreVolume::kept() const {
  return record_.last ? std::vector{*record_.last} : std::vector<CheckpointInfo>();
}

Unexpected StoreVolume::no_primary() const {
  return fail(ErrorKind::kInvalid,
              path_ +
                  ": is a back-up without its primary: only status, list, show and export make "
                  "sense; for all else give the primary image");
}

VolumeStatus StoreVolume::status() {
  VolumeStatus status;
  status.state = "stopped";
  status.role = "backup";
  status.volume = record_.volume;
  status.size_bytes = record_.size_bytes;
  status.io = "none (stopped)";
  status.last_checkpoint = record_.last;
  if (record_.last) {
    status.timeline = record_.last->id.timeline;
    status.epoch = record_.last->id.number.next();
  }
  status.store = StoreStatus{};
  status.store->address = "embedded:" + path_;
  status.store->state = "detached";
  status.store->confirmed = record_.last;
  status.store->applied = record_.applied;
  return status;
}

// The lock is that of the directory's open file, which the store closes.
Result<std::unique_ptr<Store>> StoreVolume::open_store() {
  CKPT_ASSIGN(auto directory, PosixDirectory::open(path_, false, RingUse{}));
  if (::flock(directory->fd(), LOCK_EX | LOCK_NB) != 0) {
    return errno == EWOULDBLOCK
               ? fail(ErrorKind::kBusy, path_ +
                                            " is in use by a server or another tool: give the "
                                            "primary image, and the server is asked")
               : fail_errno(errno, "flock " + path_);
  }
  CKPT_TRY(look());
  StoreOptions options;
  options.volume = record_.volume;
  options.size_bytes = record_.size_bytes;
  options.address = "embedded:" + path_;
  options.clock = &system_clock();
  return Store::open(std::move(directory), options);
}

Result<> StoreVolume::export_checkpoint(const std::string& id, ExportSink& sink) {
  CKPT_ASSIGN(const auto store, open_store());
  CKPT_ASSIGN(const CheckpointInfo target, find_checkpoint(kept(), id));
  CKPT_TRY(store->export_checkpoint(target.id.number, sink));
  return store->finish_applying();
}

}  // namespace

Result<std::unique_ptr<VolumeApi>> open_store_volume(const std::string& store_path) {
  auto volume = std::make_unique<StoreVolume>(store_path);
  CKPT_TRY(volume->look());
  return std::unique_ptr<VolumeApi>(std::move(volume));
}

}  // namespace ckpt
