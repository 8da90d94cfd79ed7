// SPDX-License-Identifier: Apache-2.0
#include "plugin/store_volume.h"

#include <fcntl.h>
#include <sys/file.h>

#include <cerrno>

#include "backupd/store/store.h"
#include "common/lineage.h"
#include "common/posix_file.h"
#include "common/remote_store.h"
#include "plugin/checkpoint_name.h"

namespace ckpt {
namespace {

// What needs a primary is refused.
class PrimarylessVolume : public VolumeApi {
 public:
  // name: what the user calls it.
  explicit PrimarylessVolume(std::string name) : name_(std::move(name)) {}
  Result<CheckpointOutcome> checkpoint(const CheckpointRequest& /*request*/) override {
    return no_primary();
  }
  Result<RollbackOutcome> roll_back(const RollbackRequest& /*request*/,
                                    const Progress& /*progress*/) override {
    return no_primary();
  }
  Result<VerifyOutcome> verify(const Progress& /*progress*/) override { return no_primary(); }
  Result<> accept() override { return no_primary(); }

 protected:
  [[nodiscard]] VolumeStatus describe(const std::optional<CheckpointInfo>& last) const {
    VolumeStatus status;
    status.state = "stopped";
    status.role = "backup";
    status.io = "none (stopped)";
    status.last_checkpoint = last;
    if (last) {
      status.timeline = last->id.timeline;
      status.epoch = last->id.number.next();
    }
    return status;
  }

 private:
  [[nodiscard]] Unexpected no_primary() const {
    return fail(ErrorKind::kInvalid,
                name_ +
                    ": is a back-up without its primary: only status, list, show and export make "
                    "sense; for all else give the primary image");
  }

  const std::string name_;
};

class StoreVolume final : public PrimarylessVolume {
 public:
  explicit StoreVolume(const std::string& path) : PrimarylessVolume(path), path_(path) {}

  Result<> look();
  VolumeStatus status() override;
  Result<std::vector<CheckpointInfo>> checkpoints() override { return kept(); }
  Result<> export_checkpoint(const std::string& id, ExportSink& sink) override;
  Result<> read_attachment(const std::string& id, const std::string& name,
                           PieceSink& sink) override;

 private:
  [[nodiscard]] std::vector<CheckpointInfo> kept() const;
  Result<std::unique_ptr<Store>> open_store();

  const std::string path_;
  StoreRecord record_;
};

class AddressedVolume final : public PrimarylessVolume {
 public:
  explicit AddressedVolume(const RemoteOptions& options)
      : PrimarylessVolume(options.address.to_string() + "/" + options.volume.to_string()),
        volume_(options.volume),
        store_(options, system_clock()) {}

  VolumeStatus status() override;
  Result<std::vector<CheckpointInfo>> checkpoints() override { return store_.checkpoints(); }
  Result<> export_checkpoint(const std::string& id, ExportSink& sink) override;
  Result<> read_attachment(const std::string& id, const std::string& name,
                           PieceSink& sink) override;

 private:
  const Uuid volume_;
  RemoteStore store_;
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

VolumeStatus StoreVolume::status() {
  VolumeStatus status = describe(record_.last);
  status.lineage = recent_ends(record_.forks);
  status.state = record_.promoted ? "promoted" : status.state;
  status.volume = record_.volume;
  status.size_bytes = record_.size_bytes;
  if (record_.rejoined) {
    status.problem =
        "its image was a primary's, and is no back-up before the new primary has made a checkpoint "
        "with it";
  }
  status.store = StoreStatus{};
  status.store->address = "embedded:" + path_;
  status.store->state = "detached";
  status.store->confirmed = record_.last;
  status.store->applied = record_.applied;
  return status;
}

// The lock is that of the directory's open file, which the store closes. Of one that was promoted
// nothing changes any more, and backupd has it open to refuse the old primary.
Result<std::unique_ptr<Store>> StoreVolume::open_store() {
  CKPT_ASSIGN(auto directory, PosixDirectory::open(path_, false, RingUse{}));
  CKPT_TRY(look());
  if (!record_.is_handed_over() && ::flock(directory->fd(), LOCK_EX | LOCK_NB) != 0) {
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

Result<> StoreVolume::read_attachment(const std::string& id, const std::string& name,
                                      PieceSink& sink) {
  CKPT_ASSIGN(const auto store, open_store());
  CKPT_ASSIGN(const CheckpointInfo target, find_checkpoint(kept(), id));
  return store->read_attachment(target.id.number, name, sink);
}

VolumeStatus AddressedVolume::status() {
  auto asked = store_.ask();
  VolumeStatus status = describe(asked ? asked->confirmed : std::nullopt);
  status.volume = volume_;
  status.size_bytes = store_.size_bytes();
  status.store = asked ? *asked : StoreStatus{};
  status.store->address = store_.address();
  if (asked) {
    status.state = "running";
    status.io = "none (of backupd)";
  } else {
    const bool is_detached = asked.error().kind == ErrorKind::kUnreachable;
    status.store->state = is_detached ? "detached" : "failed";
    status.store->error = asked.error().message();
    status.problem = status.store->error;
  }
  return status;
}

Result<> AddressedVolume::export_checkpoint(const std::string& id, ExportSink& sink) {
  CKPT_ASSIGN(const auto kept, store_.checkpoints());
  CKPT_ASSIGN(const CheckpointInfo target, find_checkpoint(kept, id));
  return store_.export_checkpoint(target.id.number, sink);
}

Result<> AddressedVolume::read_attachment(const std::string& id, const std::string& name,
                                          PieceSink& sink) {
  CKPT_ASSIGN(const auto kept, store_.checkpoints());
  CKPT_ASSIGN(const CheckpointInfo target, find_checkpoint(kept, id));
  return store_.read_attachment(target.id.number, name, sink);
}

}  // namespace

std::unique_ptr<VolumeApi> open_remote_volume(const RemoteOptions& options) {
  return std::make_unique<AddressedVolume>(options);
}

Result<std::unique_ptr<VolumeApi>> open_store_volume(const std::string& store_path) {
  auto volume = std::make_unique<StoreVolume>(store_path);
  CKPT_TRY(volume->look());
  return std::unique_ptr<VolumeApi>(std::move(volume));
}

}  // namespace ckpt
