// SPDX-License-Identifier: Apache-2.0
#include "plugin/offline_volume.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>

#include <thread>

#include "backupd/store/volume_file.h"
#include "common/lineage.h"
#include "plugin/backup_place.h"
#include "plugin/checkpoint_name.h"
#include "plugin/config.h"
#include "plugin/local_volume.h"
#include "plugin/rebuild.h"
#include "plugin/store_volume.h"

namespace ckpt {
namespace {

constexpr std::chrono::milliseconds kNarrowingLook{20};

class OfflineVolume : public VolumeApi {
 public:
  explicit OfflineVolume(LocalOptions options) : options_(std::move(options)) {}

  Result<> look();
  VolumeStatus status() override;
  Result<std::vector<CheckpointInfo>> checkpoints() override;
  Result<CheckpointOutcome> checkpoint(const CheckpointRequest& request) override;
  Result<RollbackOutcome> roll_back(const RollbackRequest& request,
                                    const Progress& progress) override;
  Result<VerifyOutcome> verify(const Progress& progress) override;
  Result<> accept() override;
  Result<> export_checkpoint(const std::string& id, ExportSink& sink) override;
  Result<> read_attachment(const std::string& id, const std::string& name,
                           PieceSink& sink) override;

 private:
  template <typename Act>
  auto with_volume(const Act& act) -> decltype(act(std::declval<Volume&>()));
  Result<RollbackOutcome> rebuild(const RollbackRequest& request, const Progress& progress);
  Result<> record_rebuild(const RollbackRequest& request, const CheckpointId& checkpoint);
  Result<> restore_on_record(const Progress& progress);
  [[nodiscard]] Result<> make_image(uint64_t size_bytes) const;
  [[nodiscard]] std::string store_path() const;
  // The store behind backupd; nothing: it is on this machine.
  [[nodiscard]] Result<std::unique_ptr<RemoteStore>> remote_store() const;
  void ask_store(StoreStatus& status) const;
  [[nodiscard]] Result<StoreStatus> read_status_here() const;
  [[nodiscard]] std::string problem_of_image() const;
  Result<StoreRecord> read_store() const;

  LocalOptions options_;
  VolumeRecord record_;
};

Result<> OfflineVolume::look() {
  CKPT_ASSIGN(auto state, PosixDirectory::open(options_.state_path, false, RingUse{}));
  CKPT_ASSIGN(auto record, VolumeRecordFile::open(*state, system_random()));
  record_ = record->get();
  return {};
}

std::string OfflineVolume::store_path() const {
  return folder_of_place(record_.store_place, options_.state_path);
}

Result<std::unique_ptr<RemoteStore>> OfflineVolume::remote_store() const {
  if (!is_remote_place(record_.store_place)) {
    return std::unique_ptr<RemoteStore>();
  }
  // It may have moved.
  const bool has_moved = is_remote_place(options_.store_place);
  CKPT_ASSIGN(RemoteOptions options,
              choose_remote_place(has_moved ? options_.store_place : record_.store_place,
                                  options_.tls, record_.store_place));
  options.volume = record_.volume;
  options.size_bytes = record_.size_bytes;
  return std::make_unique<RemoteStore>(options, system_clock());
}

// Why it could not be served; empty: no reason seen.
std::string OfflineVolume::problem_of_image() const {
  const std::string& path = options_.image_path;
  const auto file = PosixFile::open(path, O_RDONLY, RingUse{});
  if (!file) {
    return file.error().kind == ErrorKind::kNotFound
               ? path + " is gone: `ckpt-tool rollback --rebuild` makes it anew from the back-up"
               : "the image cannot be read: " + file.error().message();
  }
  const auto size_bytes = (*file)->size();
  if (size_bytes && *size_bytes != record_.size_bytes) {
    return path + " has " + std::to_string(*size_bytes) + " bytes, and the disk " +
           std::to_string(record_.size_bytes) +
           ": give it its size back (truncate -s), or `ckpt-tool rollback --rebuild`";
  }
  return "";
}

// What a rebuild needs to know. Of a store behind backupd it is what a session is told: nobody else
// has one, the caller holds the lock.
Result<StoreRecord> OfflineVolume::read_store() const {
  CKPT_ASSIGN(const auto remote, remote_store());
  if (remote != nullptr) {
    CKPT_TRY(remote->checkpoints());  // a session would make a volume that is not there
    CKPT_ASSIGN(const StoreGreeting greeting, remote->begin_session());
    StoreRecord record;
    record.volume = record_.volume;
    record.size_bytes = record_.size_bytes;
    record.last = greeting.last;
    record.incarnation = greeting.incarnation;
    return record;
  }
  CKPT_ASSIGN(auto directory, PosixDirectory::open(store_path(), false, RingUse{}));
  CKPT_ASSIGN(auto file, VolumeFile::open(*directory));
  const StoreRecord record = file->record();
  return record.promoted ? fail(ErrorKind::kFenced, store_path() +
                                                        " was promoted: its image is "
                                                        "the primary now")
                         : Result<StoreRecord>(record);
}

VolumeStatus OfflineVolume::status() {
  VolumeStatus status;
  status.state = record_.superseded ? "diverged"
                 : record_.rollback ? "rolling-back"
                 : record_.fenced   ? "fenced"
                                    : "stopped";
  status.role = "primary";
  status.image = options_.image_path;
  status.volume = record_.volume;
  status.timeline = record_.timeline;
  status.lineage = recent_ends(record_.forks);
  status.size_bytes = record_.size_bytes;
  status.io = "none (stopped)";
  status.epoch = record_.highest.next();
  status.last_checkpoint = record_.last;
  status.store = StoreStatus{};
  status.store->address = describe_place(record_.store_place, options_.state_path);
  status.store->state = "detached";
  if (record_.unplaced) {
    status.store.reset();
  } else {
    ask_store(*status.store);
  }
  status.problem = record_.superseded ? superseded_text() : problem_of_image();
  if (status.problem.empty() && !record_.clean) {
    status.problem = "the last server did not stop cleanly; the next start finds out what changed";
  }
  return status;
}

// Nobody is connected: what the store has is all there is to say, or why it cannot be asked.
void OfflineVolume::ask_store(StoreStatus& status) const {
  const auto remote = remote_store();
  const bool is_remote = remote && *remote != nullptr;
  const auto asked = is_remote ? (*remote)->ask() : read_status_here();
  if (asked) {
    const std::string address = status.address;
    status = *asked;
    status.address = address;
    status.state = "detached";
  } else {
    status.state = asked.error().kind == ErrorKind::kUnreachable ? "detached" : "failed";
    status.error = asked.error().message();
  }
}

Result<StoreStatus> OfflineVolume::read_status_here() const {
  CKPT_ASSIGN(const StoreRecord store, read_store());
  StoreStatus status;
  status.confirmed = store.last;
  status.applied = store.applied;
  return status;
}

Result<std::vector<CheckpointInfo>> OfflineVolume::checkpoints() {
  CKPT_ASSIGN(const auto remote, remote_store());
  if (remote != nullptr) {
    return remote->checkpoints();
  }
  std::vector<CheckpointInfo> kept;
  CKPT_ASSIGN(const StoreRecord store, read_store());
  if (store.last) {
    kept.push_back(*store.last);
  }
  return kept;
}

// The act in a volume that is open meanwhile, with its pumps running.
template <typename Act>
auto OfflineVolume::with_volume(const Act& act) -> decltype(act(std::declval<Volume&>())) {
  CKPT_ASSIGN(auto local, LocalVolume::open(options_));
  local->start_pumps();
  auto outcome = act(local->volume());
  if (auto closed = local->close(); !closed && !outcome) {
    return within(outcome.error().context, closed.error());
  }
  // What was done is durable even if the clean stop failed: the next start looks closer, that is
  // all.
  CKPT_TRY(look());
  return outcome;
}

Result<CheckpointOutcome> OfflineVolume::checkpoint(const CheckpointRequest& request) {
  return with_volume([&](Volume& volume) { return volume.checkpoint(request); });
}

Result<RollbackOutcome> OfflineVolume::roll_back(const RollbackRequest& request,
                                                 const Progress& progress) {
  if (record_.superseded) {
    return fail(ErrorKind::kFenced, options_.image_path + ": " + superseded_text());
  }
  if (request.rebuild) {
    return rebuild(request, progress);
  }
  return with_volume([&](Volume& volume) { return volume.roll_back(request, progress); });
}

Result<RollbackOutcome> OfflineVolume::rebuild(const RollbackRequest& request,
                                               const Progress& progress) {
  const SteadyTime began = system_clock().steady();
  CKPT_ASSIGN(const auto kept, checkpoints());
  CKPT_ASSIGN(const CheckpointInfo target, find_checkpoint(kept, request.checkpoint));
  RollbackOutcome outcome;
  outcome.checkpoint = target;
  outcome.restored_bytes = record_.size_bytes;
  if (request.dry_run) {
    return outcome;
  }
  CKPT_TRY(record_rebuild(request, target.id));
  if (auto restored = restore_on_record(progress); !restored) {
    return fail(ErrorKind::kHalfway,
                "the rebuild is on record and goes on with `ckpt-tool rollback --rebuild`, or at "
                "the next start of the server: " +
                    restored.error().message());
  }
  outcome.checkpoint.id = record_.last->id;
  outcome.elapsed = system_clock().steady() - began;
  outcome.fenced = record_.fenced;
  return outcome;
}

// The rollback on record is finished as the volume opens.
Result<> OfflineVolume::restore_on_record(const Progress& progress) {
  CKPT_TRY(make_image(record_.size_bytes));
  LocalOptions options = options_;
  options.volume.on_rollback = progress;
  CKPT_ASSIGN(const auto local, LocalVolume::open(options));
  CKPT_TRY(local->close());
  return look();
}

// The lock keeps servers out until the record says what they must do first.
Result<> OfflineVolume::record_rebuild(const RollbackRequest& request,
                                       const CheckpointId& checkpoint) {
  CKPT_ASSIGN(auto state, PosixDirectory::open(options_.state_path, false, RingUse{}));
  if (::flock(state->fd(), LOCK_EX | LOCK_NB) != 0) {
    return fail(ErrorKind::kBusy, options_.state_path + " is in use by another server or tool");
  }
  CKPT_ASSIGN(auto file, VolumeRecordFile::open(*state, system_random()));
  CKPT_ASSIGN(const StoreRecord store, read_store());
  VolumeRecord planned = file->get();
  // Who was connected when a server died may still have the disk in its cache.
  const bool fence =
      request.clients == ClientPolicy::kFence || planned.had_clients || !planned.clean;
  CKPT_TRY(plan_rebuild(planned, store, {checkpoint, fence, system_random().uuid()}));
  return file->change([&planned](VolumeRecord& record) {
    record.everything = planned.everything;
    record.last = planned.last;
    record.intent = planned.intent;
    record.rollback = planned.rollback;
  });
}

// A device has the size it has; the start says so if that is not the disk's.
Result<> OfflineVolume::make_image(uint64_t size_bytes) const {
  struct stat status {};
  const bool exists = ::stat(options_.image_path.c_str(), &status) == 0;
  if (exists && !S_ISREG(status.st_mode)) {
    return {};
  }
  if (!exists) {
    return create_whole(options_.image_path, size_bytes);
  }
  CKPT_ASSIGN(auto image, PosixFile::open(options_.image_path, O_RDWR, RingUse{}));
  CKPT_ASSIGN(const uint64_t actual_bytes, image->size());
  if (actual_bytes != size_bytes) {
    CKPT_TRY(image->resize(size_bytes));
  }
  return image->sync();
}

Result<VerifyOutcome> OfflineVolume::verify(const Progress& progress) {
  return with_volume([&](Volume& volume) {
    // After a change from outside every block counts as changed, until it was compared once.
    while (volume.is_narrowing() && progress(0, record_.size_bytes)) {
      std::this_thread::sleep_for(kNarrowingLook);
    }
    return volume.verify(progress);
  });
}

Result<> OfflineVolume::accept() {
  return with_volume([](Volume& volume) { return volume.accept(); });
}

// The image is not looked at: it may be gone.
Result<> OfflineVolume::export_checkpoint(const std::string& id, ExportSink& sink) {
  CKPT_ASSIGN(const auto remote, remote_store());
  if (remote != nullptr) {
    CKPT_ASSIGN(const auto kept, remote->checkpoints());
    CKPT_ASSIGN(const CheckpointInfo target, find_checkpoint(kept, id));
    return remote->export_checkpoint(target.id.number, sink);
  }
  CKPT_ASSIGN(const auto store, open_store_volume(store_path()));
  return store->export_checkpoint(id, sink);
}

Result<> OfflineVolume::read_attachment(const std::string& id, const std::string& name,
                                        PieceSink& sink) {
  CKPT_ASSIGN(const auto remote, remote_store());
  if (remote != nullptr) {
    CKPT_ASSIGN(const auto kept, remote->checkpoints());
    CKPT_ASSIGN(const CheckpointInfo target, find_checkpoint(kept, id));
    return remote->read_attachment(target.id.number, name, sink);
  }
  CKPT_ASSIGN(const auto store, open_store_volume(store_path()));
  return store->read_attachment(id, name, sink);
}

}  // namespace

Result<std::unique_ptr<VolumeApi>> open_offline(const std::string& image_path,
                                                const std::string& state_path,
                                                const std::string& backup, const TlsOptions& tls) {
  LocalOptions options;
  options.image_path = image_path;
  options.state_path = state_path;
  options.raw = true;
  options.volume.start.offline = true;
  CKPT_ASSIGN(options.store_place, parse_backup_option(backup));
  options.is_place_said = !options.store_place.empty();
  options.tls = tls;
  auto volume = std::make_unique<OfflineVolume>(std::move(options));
  CKPT_TRY(volume->look());
  return std::unique_ptr<VolumeApi>(std::move(volume));
}

}  // namespace ckpt
