// SPDX-License-Identifier: Apache-2.0
#include "backupd/shelf.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <filesystem>

#include "backupd/store/name_file.h"
#include "backupd/store/volume_file.h"
#include "backupd/thread.h"
#include "common/boot.h"
#include "common/clock.h"
#include "common/image_place.h"
#include "common/text.h"

namespace ckpt {
namespace {

constexpr std::chrono::seconds kApplierSleep{1};
// A sync of the image that may wait rests so many times as long as the one before took, at most so
// long: what one checkpoint wrote, the next may write over.
constexpr int kSyncRest = 20;
constexpr std::chrono::seconds kSyncRestMax{30};
// A store that could not be opened is not tried again before: recovery may take long.
constexpr std::chrono::seconds kDamageLook{5};

std::string name_of(const Uuid& volume) { return "volume " + volume.to_string(); }

// What is missing or damaged in a store comes back from a copy, or from the primary.
Error advised(Error error, const std::string& path) {
  if (error.kind == ErrorKind::kCorrupt) {
    error.context += "; nothing was changed: bring back a whole copy of " + path +
                     ", or move it away, and the primary copies all of its disk to a new one";
  }
  return error;
}

// Which store it is, as a further backupd tells it from a copy.
Result<PrimaryPlace> relaying_place(const std::string& path) {
  CKPT_ASSIGN(const auto folder, PosixDirectory::open(path, false, RingUse{}));
  CKPT_ASSIGN(const auto image, folder->open("backup.img", OpenMode::kRead));
  CKPT_ASSIGN(const FileStamp stamp, image->stamp());
  return place_of_image(stamp, path, this_boot_id());
}

}  // namespace

Result<std::unique_ptr<Shelf>> Shelf::open(const std::string& path) {
  std::unique_ptr<Shelf> shelf(new Shelf(path));
  CKPT_ASSIGN(shelf->directory_, PosixDirectory::open(path, true, RingUse{}));
  CKPT_TRY(shelf->lock());
  const MutexLock lock(shelf->mutex_);
  CKPT_TRY(shelf->open_all());
  return shelf;
}

Shelf::~Shelf() { close(); }

Result<> Shelf::lock() {
  if (::flock(directory_->fd(), LOCK_EX | LOCK_NB) == 0) {
    return {};
  }
  return errno == EWOULDBLOCK ? fail(ErrorKind::kBusy, path_ + " is in use by another backupd")
                              : fail_errno(errno, "flock " + path_);
}

Result<> Shelf::open_all() {
  CKPT_ASSIGN(const auto names, directory_->list());
  for (const std::string& name : names) {
    const auto volume = Uuid::parse(name);
    if (!volume) {
      continue;  // not ours
    }
    auto place = open_advised(*volume, std::nullopt);
    if (place) {
      share_presence(*volume, *place);
      places_.emplace(*volume, std::move(*place));
    } else if (place.error().kind != ErrorKind::kNotFound) {
      // One without a record was not made to the end: its primary makes it anew.
      damaged_.insert_or_assign(*volume, damage_of(*volume, place.error()));
    }
  }
  return {};
}

Result<Shelf::Place> Shelf::open_advised(const Uuid& volume, std::optional<uint64_t> size_bytes) {
  auto place = open_place(volume, size_bytes);
  return place ? std::move(place) : Unexpected(advised(place.error(), path_of(volume)));
}

// size_bytes: of one that may be made; nothing: it is there.
Result<Shelf::Place> Shelf::open_place(const Uuid& volume, std::optional<uint64_t> size_bytes) {
  const std::string path = path_of(volume);
  CKPT_ASSIGN(auto folder, PosixDirectory::open(path, size_bytes.has_value(), RingUse{}));
  // A store that a tool has open, for an export.
  if (::flock(folder->fd(), LOCK_EX | LOCK_NB) != 0) {
    return fail(ErrorKind::kBusy, path + " is in use by another program");
  }
  StoreOptions options;
  options.volume = volume;
  options.address = path;
  options.clock = &system_clock();
  std::string name = read_name(*folder);
  CKPT_ASSIGN(options.size_bytes, VolumeFile::size_of_disk(*folder, size_bytes));
  CKPT_ASSIGN(auto store, Store::open(std::move(folder), options));
  CKPT_TRY(directory_->sync());
  Place place;
  place.waker = std::make_unique<Waker>();
  place.ending = std::make_unique<std::atomic<bool>>(false);
  store->set_work_listener([waker = place.waker.get()] { waker->wake(); });
  const auto closed = std::make_shared<std::promise<void>>();
  place.closed = closed->get_future();
  auto served =
      std::make_unique<ServedVolume>(std::move(store), options.size_bytes, std::move(name));
  place.volume = {served.release(), [closed](ServedVolume* one) {
                    std::unique_ptr<ServedVolume>(one).reset();
                    closed->set_value();
                  }};
  return place;
}

Result<std::shared_ptr<ServedVolume>> Shelf::find(const Hello& hello, bool may_make) {
  std::shared_ptr<ServedVolume> volume = find_open(hello.volume);
  if (volume == nullptr) {
    CKPT_ASSIGN(volume, open_missing(hello, may_make));
  }
  if (hello.size_bytes != 0 && hello.size_bytes != volume->size_bytes()) {
    return fail(ErrorKind::kInvalid, name_of(hello.volume) + " is of a disk of " +
                                         std::to_string(volume->size_bytes()) +
                                         " bytes here, not of " + std::to_string(hello.size_bytes));
  }
  return volume;
}

std::shared_ptr<ServedVolume> Shelf::find_open(const Uuid& volume) {
  const MutexLock lock(mutex_);
  const auto found = places_.find(volume);
  return found == places_.end() ? nullptr : found->second.volume;
}

// Recovery may take long: the others are found meanwhile.
Result<std::shared_ptr<ServedVolume>> Shelf::open_missing(const Hello& hello, bool may_make) {
  CKPT_ASSIGN(const auto size_bytes, begin_opening(hello, may_make));
  auto place = open_advised(hello.volume, size_bytes);
  const MutexLock lock(mutex_);
  opening_.erase(hello.volume);
  auto added = add(hello.volume, std::move(place));
  if (!added) {
    const bool was_there = !size_bytes.has_value();
    if (was_there) {
      Damage& damage = damaged_[hello.volume];  // its name is known
      damage.error = added.error();
      damage.seen_at = system_clock().steady();
    }
    return within(name_of(hello.volume) + " cannot be opened at the back-up", added.error());
  }
  return added;
}

// One that was opened, or could not be.
Result<std::shared_ptr<ServedVolume>> Shelf::add(const Uuid& volume, Result<Place> place) {
  if (!place) {
    return Unexpected(place.error());
  }
  if (is_pumping_) {
    CKPT_TRY(start_pumps_of(*place));
  }
  damaged_.erase(volume);
  share_presence(volume, *place);
  return places_.emplace(volume, std::move(*place)).first->second.volume;
}

void Shelf::share_presence(const Uuid& volume, const Place& place) {
  auto& presence = presences_[volume];
  if (presence == nullptr) {
    presence = std::make_shared<std::atomic<PrimaryPresence>>(PrimaryPresence::kNever);
  }
  place.volume->share_presence(presence);
}

// The size of one that may be made, or nothing: it is there. One that could not be opened may have
// been mended meanwhile, or be free again, and is tried now and then.
Result<std::optional<uint64_t>> Shelf::begin_opening(const Hello& hello, bool may_make) {
  const std::string name = name_of(hello.volume);
  const MutexLock lock(mutex_);
  if (released_.contains(hello.volume)) {
    return fail(ErrorKind::kBusy, name + " is in use by another program at the back-up");
  }
  const auto damage = damaged_.find(hello.volume);
  const bool is_damaged = damage != damaged_.end();
  if (is_damaged && system_clock().steady() < damage->second.seen_at + kDamageLook) {
    return within(name + " cannot be opened at the back-up", damage->second.error);
  }
  if (!is_damaged && hello.role != Role::kSession) {
    return fail(ErrorKind::kNotFound, "there is no " + name + " here");
  }
  if (!is_damaged && !may_make && !is_there(hello.volume)) {
    return fail(ErrorKind::kDenied, "there is no " + name +
                                        " here, and the access list does not allow this client to "
                                        "have it made (operation \"create\")");
  }
  if (!opening_.insert(hello.volume).second) {
    return fail(ErrorKind::kBusy, name + " is just being opened at the back-up");
  }
  return is_damaged ? std::optional<uint64_t>() : std::optional(hello.size_bytes);
}

bool Shelf::is_there(const Uuid& volume) const {
  std::error_code ignored;  // what cannot be looked at is not made either
  return std::filesystem::exists(path_of(volume) + "/volume", ignored);
}

std::string Shelf::path_of(const Uuid& volume) const { return path_ + "/" + volume.to_string(); }

Shelf::Damage Shelf::damage_of(const Uuid& volume, const Error& error) const {
  const auto folder = PosixDirectory::open(path_of(volume), false, RingUse{});
  return {error, system_clock().steady(), folder ? read_name(**folder) : ""};
}

Result<> Shelf::start_pumps(std::vector<RelayTarget> relays, LogLine log) {
  const MutexLock lock(mutex_);
  is_pumping_ = true;
  relays_ = std::move(relays);
  log_ = std::move(log);
  for (auto& [volume, place] : places_) {
    CKPT_TRY(start_pumps_of(place));
  }
  return {};
}

Result<> Shelf::start_pumps_of(Place& place) {
  start_relays(place);
  CKPT_ASSIGN(place.pump,
              start_thread("backupd-apply", [volume = place.volume, waker = place.waker.get(),
                                             ending = place.ending.get()] {
                apply(volume->store(), *waker, *ending);
              }));
  return {};
}

Result<std::unique_ptr<RelayPump>> Shelf::start_relay(const Place& place,
                                                      const RelayTarget& target) {
  CKPT_ASSIGN(const PrimaryPlace relaying,
              relaying_place(path_of(place.volume->store().record().volume)));
  return RelayPump::start(place.volume, target, relaying, log_);
}

// What is confirmed is news for the applier and for the relays.
void Shelf::start_relays(Place& place) {
  const StoreRecord record = place.volume->store().record();
  std::vector<RelayPump*> pumps;
  for (const RelayTarget& target : relays_) {
    if (!target.is_of(record.volume) || record.promoted) {
      continue;
    }
    auto pump = start_relay(place, target);
    if (!pump) {
      // The volume is served all the same.
      log_(name_of(record.volume) + ": no relay to " + target.to.to_string() +
           " until a restart: " + printable(pump.error().message()));
      continue;
    }
    pumps.push_back(pump->get());
    place.relays.push_back(std::move(*pump));
  }
  place.volume->set_relays([pumps] {
    std::vector<RelayState> states;
    for (RelayPump* const pump : pumps) {
      states.push_back(pump->state());
    }
    return states;
  });
  place.volume->store().set_work_listener([waker = place.waker.get(), pumps] {
    waker->wake();
    for (RelayPump* const pump : pumps) {
      pump->wake();
    }
  });
}

void Shelf::apply(Store& store, Waker& waker, const std::atomic<bool>& ending) {
  SteadyTime sync_after{};
  while (!ending.load()) {
    const SteadyTime begin = system_clock().steady();
    const bool rests = store.may_sync_later() && begin < sync_after;
    if (!store.has_work() || rests) {
      waker.wait(rests ? sync_after - begin : std::chrono::nanoseconds(kApplierSleep));
      continue;
    }
    const bool is_sync = store.has_only_to_sync();
    if (!store.apply_some()) {
      waker.wait(kApplierSleep);  // its status says what is wrong; space may come back
    }
    if (is_sync) {
      const SteadyTime end = system_clock().steady();
      sync_after =
          end + std::min<std::chrono::nanoseconds>((end - begin) * kSyncRest, kSyncRestMax);
    }
  }
  if (store.has_only_to_sync()) {
    (void)store.apply_some();  // else the next start applies the pass again
  }
}

void Shelf::close() {
  const MutexLock lock(mutex_);
  for (auto& [volume, place] : places_) {
    ask_to_end(place);
  }
  for (auto& [volume, place] : places_) {
    join(place);
  }
  is_pumping_ = false;
}

// Its pumps.
void Shelf::ask_to_end(Place& place) {
  place.ending->store(true);
  place.waker->wake();
  place.volume->set_relays({});
  place.volume->store().set_work_listener({});
  for (const auto& relay : place.relays) {
    relay->stop();
  }
}

void Shelf::join(Place& place) {
  place.relays.clear();
  if (place.pump.joinable()) {
    place.pump.join();
  }
}

Result<> Shelf::release(const Uuid& volume, bool force) {
  CKPT_ASSIGN(const auto served, begin_release(volume));
  // What its session has under way may take a while: the others are found meanwhile.
  if (auto retired = served == nullptr ? Result<>() : served->retire(force); !retired) {
    const MutexLock lock(mutex_);
    released_.erase(volume);
    return retired;
  }
  if (auto place = take_out(volume)) {
    ask_to_end(*place);
    join(*place);
    place->volume.reset();
    place->closed.wait();
  }
  return {};
}

// The volume, if it is open. Nobody opens it from here on.
Result<ServedVolume*> Shelf::begin_release(const Uuid& volume) {
  const MutexLock lock(mutex_);
  const auto found = places_.find(volume);
  if (found == places_.end() && !is_there(volume)) {
    return fail(ErrorKind::kNotFound, "there is no " + name_of(volume) + " here");
  }
  if (opening_.contains(volume) || !released_.insert(volume).second) {
    return fail(ErrorKind::kBusy,
                name_of(volume) + " is just being opened, or in use by another program");
  }
  return found == places_.end() ? nullptr : found->second.volume.get();
}

std::optional<Shelf::Place> Shelf::take_out(const Uuid& volume) {
  const MutexLock lock(mutex_);
  auto taken = places_.extract(volume);
  return taken.empty() ? std::nullopt : std::optional<Place>(std::move(taken.mapped()));
}

void Shelf::take_back(const Uuid& volume) {
  auto place = open_advised(volume, std::nullopt);
  const MutexLock lock(mutex_);
  released_.erase(volume);
  const auto added = add(volume, std::move(place));
  // One that was moved away is no volume any more. Who was killed may have left its connection
  // before its lock: whoever asks for the volume tries again.
  if (!added && added.error().kind != ErrorKind::kNotFound) {
    Damage damage = damage_of(volume, added.error());
    damage.seen_at = {};
    damaged_.insert_or_assign(volume, std::move(damage));
  }
}

Address Shelf::own_address() const {
  return {"/proc/self/fd/" + std::to_string(directory_->fd()) + "/" + kBackupdSocketName, "", ""};
}

std::vector<ShelfLine> Shelf::list() {
  const MutexLock lock(mutex_);
  std::vector<ShelfLine> lines;
  for (const auto& [volume, place] : places_) {
    lines.push_back(
        {volume, place.volume->name(), place.volume->size_bytes(), place.volume->store().status()});
  }
  return lines;
}

std::vector<NamedVolume> Shelf::volumes() {
  const MutexLock lock(mutex_);
  std::map<Uuid, NamedVolume> found;
  for (const auto& [volume, place] : places_) {
    found[volume] = {volume, place.volume->size_bytes(), place.volume->name()};
  }
  for (const auto& [volume, damage] : damaged_) {
    found[volume] = {volume, 0, damage.name};
  }
  std::vector<NamedVolume> volumes;
  for (auto& [volume, one] : found) {
    volumes.push_back(std::move(one));
  }
  return volumes;
}

Result<> Shelf::set_name(const Uuid& volume, const std::string& name) {
  const std::shared_ptr<ServedVolume> named = find_open(volume);
  if (named == nullptr) {
    return {};
  }
  return named->set_name(name, [&]() -> Result<> {
    CKPT_ASSIGN(const auto folder, PosixDirectory::open(path_of(volume), false, RingUse{}));
    return write_name(*folder, name);
  });
}

std::map<Uuid, Error> Shelf::damaged() {
  const MutexLock lock(mutex_);
  std::map<Uuid, Error> found;
  for (const auto& [volume, damage] : damaged_) {
    found.emplace(volume, damage.error);
  }
  return found;
}

}  // namespace ckpt
