// SPDX-License-Identifier: Apache-2.0
#include "plugin/local_volume.h"

#include <fcntl.h>
#include <pthread.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <optional>
#include <system_error>

#include "backupd/store/volume_file.h"
#include "common/boot.h"
#include "common/direct_file.h"
#include "common/image_place.h"
#include "common/tls_credentials.h"
#include "plugin/backup_place.h"
#include "plugin/backup_room.h"
#include "plugin/control_socket.h"
#include "plugin/lost_record.h"
#include "plugin/own_export.h"
#include "plugin/pace.h"
#include "plugin/schedule.h"

namespace ckpt {
namespace {

constexpr std::chrono::seconds kLockPatience{10};
constexpr std::chrono::milliseconds kLockLook{50};
constexpr std::chrono::milliseconds kKeeperSleep{50};
constexpr std::chrono::milliseconds kKeeperLook{5};  // while a checkpoint wants the image synced
constexpr std::chrono::seconds kStopPatience{3};     // until the back-up has heard of a stop
constexpr std::chrono::seconds kApplierSleep{1};
// Where processors are short, clients come first, and the applier rests so many times as long as it
// works. Nobody waits for it until the store has too much to apply, and then the shipper helps.
constexpr int kApplierRest = 7;
// Comparing with the store makes less count as changed; nobody waits for that either.
constexpr int kNarrowerRest = 3;
constexpr std::chrono::hours kForever{24};
// How much nicer than the clients' requests the pumps are (setpriority(2)). Of the processors' time
// that a pump takes at equal priority clients lose up to twice as much: they wake each other for
// every request, and a pump that runs keeps them from it.
constexpr int kShipNice = 5;
constexpr int kRestNice = 10;                          // those that nobody waits for
constexpr std::chrono::milliseconds kApplierLook{20};  // no client has written for so long: no rest

// The calling thread's priority, from the server's own down. On Linux it is the thread's alone.
void make_way(int nice) {
  errno = 0;
  const int own = getpriority(PRIO_PROCESS, 0);
  if (errno == 0) {
    (void)setpriority(PRIO_PROCESS, 0, own + nice);  // where it is refused it stays as it was
  }
}

bool exists(const std::string& path) { return ::access(path.c_str(), F_OK) == 0; }

// A device's state is kept elsewhere: beside the node, in /dev, it would be gone with the boot.
Result<> check_device(const std::string& path, const LocalOptions& options, dev_t device) {
  if (options.state_path.empty()) {
    return fail(ErrorKind::kInvalid, path +
                                         " is a block device: say where to keep its state, on "
                                         "another disk (state=DIR)");
  }
  if (options.create_bytes) {
    return fail(ErrorKind::kInvalid, path + " is a block device: it has its size, leave out size=");
  }
  CKPT_ASSIGN(auto file, PosixFile::open(path, O_RDONLY, RingUse{}));
  CKPT_ASSIGN(const uint64_t size_bytes, file->size());
  const std::string own = OwnExport(size_bytes).find(device);
  return own.empty() ? Result<>()
                     : Result<>(fail(ErrorKind::kInvalid,
                                     path + " is " + own +
                                         ", a network block device: if it is an export of this "
                                         "server, the server would wait for itself"));
}

}  // namespace

std::string foreign_format(ConstByteSpan head) {
  struct Magic {
    const char* bytes;
    size_t length;
    const char* name;
  };
  constexpr std::array<Magic, 4> kMagics{{{"QFI\xfb", 4, "qcow2"},
                                          {"KDMV", 4, "VMDK"},
                                          {"# Disk DescriptorFile", 21, "VMDK"},
                                          {"vhdxfile", 8, "VHDX"}}};
  for (const Magic& magic : kMagics) {
    if (head.size() >= magic.length && std::memcmp(head.data(), magic.bytes, magic.length) == 0) {
      return magic.name;
    }
  }
  return "";
}

std::string default_state_path(const std::string& image_path) { return image_path + ".ckpt"; }

Result<std::unique_ptr<LocalVolume>> LocalVolume::open(const LocalOptions& options) {
  auto local = std::unique_ptr<LocalVolume>(new LocalVolume(options));
  local->state_path_ =
      options.state_path.empty() ? default_state_path(options.image_path) : options.state_path;
  if (!options.has_backup && options.checkpoint_interval.count() > 0) {
    return fail(ErrorKind::kInvalid, "checkpoint-interval= needs a back-up: leave out backup=none");
  }
  if (!options.has_backup && options.volume.requires_backup) {
    return fail(ErrorKind::kInvalid, "require-backup=on needs a back-up: leave out backup=none");
  }
  if (!options.has_backup && options.volume.awaits_relay) {
    return fail(ErrorKind::kInvalid, "confirm=relayed needs a back-up: leave out backup=none");
  }
  CKPT_TRY(local->check_record());
  CKPT_TRY(local->look_at_image());
  CKPT_TRY(local->open_image());
  CKPT_TRY(local->open_state());
  CKPT_TRY(local->lock(local->image_fd_, options.image_path));
  CKPT_TRY(local->lock(local->state_->fd(), local->state_path_));
  CKPT_TRY(local->open_volume());
  return local;
}

LocalVolume::~LocalVolume() { stop_pumps(); }

// A volume made anew would be a stranger to a back-up that is there.
Result<> LocalVolume::check_record() const {
  if (is_remote_place(options_.store_place)) {
    return {};  // the volume would be another, and so would be its back-up there
  }
  const std::string store = folder_of_place(options_.store_place, state_path_);
  if (exists(state_path_ + "/volume") || !exists(store + "/volume")) {
    return {};
  }
  return fail(ErrorKind::kInvalid,
              store + " holds a back-up, and " + state_path_ +
                  "/volume, which would say that it is this disk's, is missing: " +
                  advice_on_lost_record(store, store));
}

// The image of a back-up is written by its store alone, until it is promoted.
Result<> LocalVolume::check_no_backup() const {
  std::error_code ignored;
  const auto image = std::filesystem::canonical(options_.image_path, ignored);
  const std::string folder = image.parent_path().string();
  if (image.filename() != "backup.img" || !exists(folder + "/volume") ||
      !exists(folder + "/journal")) {
    return {};
  }
  const auto directory = PosixDirectory::open(folder, false, RingUse{});
  const auto store = directory ? VolumeFile::open(**directory) : Unexpected(directory.error());
  const StoreRecord record = store ? (*store)->record() : StoreRecord{};
  return record.is_handed_over()
             ? Result<>()
             : Result<>(
                   fail(ErrorKind::kInvalid, options_.image_path +
                                                 " is the image of a back-up: if its primary is "
                                                 "lost, ckpt-tool promote " +
                                                 folder + " makes it one"));
}

// What it is, and whether it can be served.
Result<> LocalVolume::look_at_image() {
  CKPT_TRY(check_no_backup());
  const std::string& path = options_.image_path;
  struct stat status {};
  if (stat(path.c_str(), &status) != 0) {
    if (errno != ENOENT) {
      return fail_errno(errno, path);
    }
    CKPT_TRY(create_image());
  } else if (S_ISDIR(status.st_mode)) {
    return fail(ErrorKind::kInvalid, path + " is a directory, not a disk image");
  } else if (S_ISBLK(status.st_mode)) {
    is_device_ = true;
    return check_device(path, options_, status.st_rdev);
  } else if (!S_ISREG(status.st_mode)) {
    return fail(ErrorKind::kInvalid, path + " is neither a regular file nor a block device");
  }
  return {};
}

Result<> LocalVolume::open_image() {
  const IoTarget target{is_device_ ? "" : directory_of(options_.image_path), options_.direct};
  CKPT_ASSIGN(const IoChoice io, choose_io(options_.io, target));
  ring_ = io.ring;
  io_text_ = io.text;
  // Of a device it keeps out whoever would mount it or build on it (open(2), O_EXCL).
  const int flags = is_device_ ? O_RDWR | O_EXCL : O_RDWR;
  const SteadyTime deadline = system_clock().steady() + kLockPatience;
  auto image = open_image_file(flags);
  while (!image && image.error().number == EBUSY && system_clock().steady() < deadline) {
    std::this_thread::sleep_for(kLockLook);
    image = open_image_file(flags);
  }
  if (!image && image.error().number == EBUSY) {
    return fail(ErrorKind::kBusy,
                options_.image_path + " is in use: mounted, part of another device, or served");
  }
  CKPT_ASSIGN(image_, std::move(image));
  return check_format();
}

Result<std::unique_ptr<File>> LocalVolume::open_image_file(int flags) {
  if (options_.direct) {
    CKPT_ASSIGN(auto file, DirectFile::open(options_.image_path, flags, ring_));
    image_fd_ = file->fd();
    return std::unique_ptr<File>(std::move(file));
  }
  CKPT_ASSIGN(auto file, PosixFile::open(options_.image_path, flags, ring_));
  image_fd_ = file->fd();
  return std::unique_ptr<File>(std::move(file));
}

Result<> LocalVolume::create_image() {
  // An empty image in its place would be the disk from then on, and its checkpoint soon be gone.
  if (exists(state_path_ + "/volume")) {
    return fail(ErrorKind::kNotFound,
                options_.image_path + " is gone, but not its state in " + state_path_ +
                    ": `ckpt-tool rollback --rebuild` makes it anew from the back-up; or move the "
                    "state directory away to begin anew");
  }
  if (!options_.create_bytes) {
    return fail(ErrorKind::kNotFound,
                options_.image_path + " does not exist; size=SIZE makes a new image");
  }
  return create_whole(options_.image_path, *options_.create_bytes);
}

Result<> LocalVolume::check_format() {
  CKPT_ASSIGN(const uint64_t size_bytes, image_->size());
  if (size_bytes == 0 || size_bytes > kDiskBytesMax) {
    return fail(ErrorKind::kInvalid, options_.image_path + " has " + std::to_string(size_bytes) +
                                         " bytes: not the size of a disk");
  }
  std::vector<std::byte> head(std::min<uint64_t>(size_bytes, 64));
  CKPT_TRY(image_->read(0, head));
  const std::string format = foreign_format(head);
  if (!format.empty() && !options_.raw) {
    return fail(ErrorKind::kInvalid,
                options_.image_path + " looks like a " + format +
                    " image; ckpt serves raw images. Convert it (qemu-img convert -O raw), or say "
                    "format=raw to serve its bytes as they are");
  }
  return {};
}

Result<> LocalVolume::open_state() {
  CKPT_ASSIGN(const uint64_t size_bytes, image_->size());
  CKPT_TRY(OwnExport(size_bytes).refuse(state_path_));
  auto state = PosixDirectory::open(state_path_, true, ring_);
  if (!state) {
    return within("state directory", state.error());
  }
  state_ = std::move(*state);
  CKPT_ASSIGN(memory_, TmpfsMemoryStore::open());
  return {};
}

// The lock goes with the open file: I/O of a killed server that is still landing keeps it.
Result<> LocalVolume::lock(int fd, const std::string& path) {
  const SteadyTime deadline = system_clock().steady() + kLockPatience;
  while (flock(fd, LOCK_EX | LOCK_NB) != 0) {
    if (errno != EWOULDBLOCK) {
      return fail_errno(errno, "flock " + path);
    }
    if (ControlConnection::connect(state_path_) || system_clock().steady() > deadline) {
      return fail(ErrorKind::kBusy, path + " is in use by another server or tool");
    }
    std::this_thread::sleep_for(kLockLook);
  }
  return {};
}

Result<> LocalVolume::open_volume() {
  const Surroundings surroundings{*image_,         *state_,        *memory_,         system_clock(),
                                  system_random(), this_boot_id(), this_boot_time(), is_device_};
  VolumeOptions options = options_.volume;
  options.start.store_place = options_.store_place;
  if (is_remote_place(options_.store_place)) {
    CKPT_ASSIGN(options.start.store_place, place_of_store(options_.store_place));
  }
  options.image_path = options_.image_path;
  options.io = io_text_;
  options.has_backup = options_.has_backup;
  options.checkpoint_interval = options_.checkpoint_interval;
  const OpenStore open_store = [this](const VolumeRecord& record) -> Result<StoreLink*> {
    CKPT_ASSIGN(StoreLink * link, this->open_store(record));
    if (options_.trace.traces()) {
      trace_ = std::make_unique<LinkTrace>(*link, options_.trace, system_clock());
      link = trace_.get();
    }
    return link;
  };
  CKPT_ASSIGN(volume_,
              Volume::open(surroundings, options, open_store, [this] { return free_reserve(); }));
  // What a tool was told once is not what later starts go by, unless the store has moved.
  const bool is_told_once = options_.volume.start.offline && !options_.is_place_said;
  return options_.has_backup && !is_told_once ? volume_->record_place(place_) : Result<>();
}

// Only on the image's own file system does the reserve help a write that found no space.
bool LocalVolume::free_reserve() {
  struct stat image {};
  struct stat store {};
  return store_ != nullptr && fstat(image_fd_, &image) == 0 &&
         fstat(store_lock_.get(), &store) == 0 && image.st_dev == store.st_dev &&
         store_->free_reserve().has_value();
}

Result<StoreLink*> LocalVolume::open_store(const VolumeRecord& record) {
  if (!options_.has_backup) {
    return static_cast<StoreLink*>(&no_store_);
  }
  if (record.unplaced && !options_.is_place_said) {
    if (options_.volume.start.offline) {
      return static_cast<StoreLink*>(&no_store_);
    }
    return fail(ErrorKind::kInvalid,
                options_.image_path +
                    " was promoted: say where its own back-up is to be "
                    "(backup=HOST:PORT, backup=embedded[:DIR]), or that there is "
                    "none yet (backup=none)");
  }
  CKPT_ASSIGN(place_, place_of_store(record.unplaced ? options_.store_place : record.store_place));
  CKPT_TRY(record.giving_up ? check_same_address(record.store_place) : Result<>());
  if (options_.volume.awaits_relay && !is_remote_place(place_)) {
    return fail(ErrorKind::kInvalid,
                "confirm=relayed needs a back-up that passes its checkpoints on: backup=HOST:PORT");
  }
  return is_remote_place(place_) ? open_remote(record, place_)
                                 : open_folder(record, folder_of_place(place_, state_path_));
}

// Another one, a relay's perhaps, has the same checkpoints, and cannot know.
Result<> LocalVolume::check_same_address(const std::string& recorded) const {
  CKPT_ASSIGN(const RemoteOptions told, choose_remote_place(recorded, options_.tls, recorded));
  CKPT_ASSIGN(const RemoteOptions chosen, choose_remote_place(place_, options_.tls, recorded));
  return told.address == chosen.address
             ? Result<>()
             : fail(ErrorKind::kInvalid, "the back-up at " + told.address.to_string() +
                                             " was told to become the primary (ckpt-tool switch): "
                                             "that one has to say whether it is, and no other");
}

// A remote one may have got another address: that it is the same store is seen by what it holds.
Result<std::string> LocalVolume::place_of_store(const std::string& recorded) const {
  const std::string& wanted = options_.is_place_said ? options_.store_place : recorded;
  const bool is_remote = is_remote_place(wanted);
  if (is_remote && is_remote_place(recorded)) {
    CKPT_ASSIGN(const RemoteOptions chosen, choose_remote_place(wanted, options_.tls, recorded));
    return remote_place(chosen.address, chosen.tls);
  }
  if (is_remote || wanted != recorded) {
    return fail(ErrorKind::kInvalid, "the back-up of this volume is " +
                                         describe_place(recorded, state_path_) + ", not " +
                                         describe_place(wanted, state_path_) +
                                         "; move the state directory away to begin anew");
  }
  if (options_.tls.is_used()) {
    return fail(ErrorKind::kInvalid, "the back-up of this volume is " +
                                         describe_place(recorded, state_path_) +
                                         ", to which there is no TLS: leave out tls-certificates "
                                         "and tls-psk");
  }
  return wanted;
}

Result<StoreLink*> LocalVolume::open_remote(const VolumeRecord& record, const std::string& place) {
  CKPT_ASSIGN(RemoteOptions options, parse_remote_place(place));
  options.volume = record.volume;
  options.size_bytes = record.size_bytes;
  options.name = options_.volume.name;
  CKPT_ASSIGN(const FileStamp stamp, image_->stamp());
  options.place = place_of_image(stamp, options_.image_path, this_boot_id());
  CKPT_TRY(check_address(options.address, options.tls.reach()));
  if (options.tls.is_used()) {
    CKPT_TRY(TlsCredentials::load(options.tls, TlsSide::kClient));  // to say it at the start
  }
  remote_ = std::make_unique<RemoteStore>(options, system_clock());
  return static_cast<StoreLink*>(remote_.get());
}

Result<StoreLink*> LocalVolume::open_folder(const VolumeRecord& record, const std::string& path) {
  CKPT_TRY(OwnExport(record.size_bytes).refuse(path));
  auto directory = PosixDirectory::open(path, true, ring_);
  if (!directory) {
    return within("back-up", directory.error());
  }
  // The directory closes its descriptor with the store; a copy of it keeps the lock as long.
  store_lock_.reset(fcntl((*directory)->fd(), F_DUPFD_CLOEXEC, 0));
  CKPT_TRY(lock(store_lock_.get(), path));
  StoreOptions options;
  options.volume = record.volume;
  options.size_bytes = record.size_bytes;
  options.address = "embedded:" + path;
  options.clock = &system_clock();
  CKPT_ASSIGN(store_, Store::open(std::move(*directory), options));
  store_->set_work_listener([this] { applier_.wake(); });
  return static_cast<StoreLink*>(store_.get());
}

std::string LocalVolume::space_note() const {
  if (store_ == nullptr) {
    return "";
  }
  const StoreStatus status = store_->status();
  const std::string path = status.address.substr(status.address.find(':') + 1);
  return ckpt::space_note(room_for_backup(path, volume_->size_bytes(), status.free_bytes));
}

void LocalVolume::start_pumps() {
  uring_enable();
  const auto start = [this](const char* name, void (LocalVolume::*pump)()) {
    pumps_.emplace_back(pump, this);
    pthread_setname_np(pumps_.back().native_handle(), name);
  };
  start("ckpt-ship", &LocalVolume::ship);
  start("ckpt-hurry", &LocalVolume::hurry);
  start("ckpt-keep", &LocalVolume::keep);
  if (store_ != nullptr) {
    start("ckpt-apply", &LocalVolume::apply);
  }
  if (remote_ != nullptr) {
    start("ckpt-link", &LocalVolume::look_after_link);
  }
}

// Ships in the clients' shadow; a checkpoint that is late is handed over to hurry().
void LocalVolume::ship() {
  make_way(kShipNice);
  Schedule schedule(options_.checkpoint_interval, system_clock().steady());
  CrowdMeter crowd;
  while (!stopping_.load()) {
    if (const uint64_t due = schedule.passed(system_clock().steady()); due > 0) {
      volume_->checkpoints_due(due);
    }
    if (volume_->is_late()) {
      hurrying_.store(true);
      hurried_.wake();
    }
    while (hurrying_.load() && !stopping_.load()) {
      resumed_.wait(kForever);
    }
    ship_once(crowd, schedule.left(system_clock().steady()));
  }
}

// The same with the priority that the server was started with: only a privileged process could
// raise that of a thread again.
void LocalVolume::hurry() {
  CrowdMeter crowd;
  while (!stopping_.load()) {
    while (hurrying_.load() && volume_->is_late() && !stopping_.load()) {
      ship_once(crowd, kForever);
    }
    hurrying_.store(false);
    resumed_.wake();
    hurried_.wait(kForever);
  }
}

void LocalVolume::ship_once(CrowdMeter& crowd, std::chrono::nanoseconds wait_most) {
  const bool busy = volume_->ship_step();
  const bool wants_sync = volume_->wants_sync();
  if (!wanted_sync_.exchange(wants_sync) && wants_sync) {
    keeper_.wake();
  }
  if (!busy) {
    volume_->wait_for_work(wait_most);
    return;
  }
  crowd.look();
  volume_->set_crowded(crowd.is_crowded());
  // A checkpoint never rests: the longer it took, the more blocks would have to be preserved.
  if (volume_->is_narrowing()) {
    std::this_thread::sleep_for(crowd.rest(kNarrowerRest));
  }
}

void LocalVolume::keep() {
  make_way(kRestNice);
  while (!stopping_.load()) {
    if (!volume_->keep_step()) {
      keeper_.wait(volume_->wants_sync() ? kKeeperLook : kKeeperSleep);
    }
  }
}

void LocalVolume::apply() {
  make_way(kRestNice);
  CrowdMeter crowd;
  Pace steps(kApplierLook);
  Pace passes(kApplierLook);
  std::optional<uint64_t> timed_pass;
  while (!stopping_.load()) {
    const SteadyTime begin = system_clock().steady();
    const Pace& pace = crowd.is_crowded() && store_->may_sync_later() ? passes : steps;
    if (!store_->has_work() || !pace.may_go_on(begin, volume_->since_write())) {
      const auto rest = pace.rest(begin);
      applier_.wait(store_->has_work() ? rest : std::chrono::nanoseconds(kApplierSleep));
      continue;
    }
    if (timed_pass != store_->passes()) {
      timed_pass = store_->passes();
      passes.rest_for(kDirtyTime, begin);
      continue;  // it holds back this very step, where that is a sync
    }
    if (!store_->apply_some()) {
      // The store's status says what is wrong; space may come back.
      applier_.wait(kApplierSleep);
      continue;
    }
    crowd.look();
    steps.rest_for(crowd.rest(kApplierRest), system_clock().steady());
  }
}

void LocalVolume::look_after_link() {
  while (!stopping_.load()) {
    remote_->look_after();
  }
}

void LocalVolume::stop_waiting() {
  volume_->stop_waiting();
  leave_remote();
}

// A back-up that hangs, or a pump that waits for it, does not keep the server from its end.
void LocalVolume::leave_remote() {
  if (remote_ == nullptr || std::exchange(has_left_, true)) {
    return;
  }
  Waker said;
  std::thread teller;
  try {
    teller = std::thread([&] {
      (void)remote_->say_stop();
      said.wake();
    });
    said.wait(kStopPatience);
  } catch (const std::system_error&) {  // no thread more: then it is not said
  }
  remote_->stop();
  if (teller.joinable()) {
    teller.join();
  }
}

void LocalVolume::stop_pumps() {
  stopping_.store(true);
  // Without pumps this is the process that nbdkit leaves behind: the connection is another's.
  if (remote_ != nullptr && !pumps_.empty()) {
    remote_->stop();
  }
  hurried_.wake();
  resumed_.wake();
  keeper_.wake();
  applier_.wake();
  if (volume_ != nullptr) {
    volume_->wake();
  }
  for (std::thread& pump : pumps_) {
    pump.join();
  }
  pumps_.clear();
}

Result<> LocalVolume::close() {
  leave_remote();
  stop_pumps();
  if (store_ != nullptr && store_->has_only_to_sync()) {
    (void)store_->apply_some();  // else the next start applies the pass again
  }
  return volume_->close();
}

}  // namespace ckpt
