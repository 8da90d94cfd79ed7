// SPDX-License-Identifier: Apache-2.0
// The volumes of a daemon: a folder each, named by its UUID, and a pump that applies what is
// confirmed.
#pragma once

#include <future>
#include <map>
#include <set>
#include <thread>

#include "backupd/relay_pump.h"
#include "backupd/served_volume.h"
#include "common/clock.h"
#include "common/posix_file.h"
#include "common/waker.h"

namespace ckpt {

// What people are told of a volume.
struct ShelfLine {
  Uuid volume;
  std::string name;
  uint64_t size_bytes = 0;
  StoreStatus status;
};

// Threads:  what a VolumeShelf does by any, and list(); the others by one. open() starts none;
//           start_pumps() does, and from then on a volume that is made has one too; close() joins
//           them.
// Lifetime: the destructor without close() abandons the stores, as a kill would.
class Shelf final : public VolumeShelf {
 public:
  // Locks the folder, which is made if it is not there, and opens every store in it. One that
  // cannot be opened keeps no other from being served: find() says why. kBusy: another daemon has
  // the folder.
  static Result<std::unique_ptr<Shelf>> open(const std::string& path);
  ~Shelf() override;

  Result<std::shared_ptr<ServedVolume>> find(const Hello& hello, bool may_make) override
      CKPT_EXCLUDES(mutex_);
  std::vector<NamedVolume> volumes() override CKPT_EXCLUDES(mutex_);
  // In the file `name` of its folder.
  Result<> set_name(const Uuid& volume, const std::string& name) override CKPT_EXCLUDES(mutex_);
  Result<> release(const Uuid& volume, bool force) override CKPT_EXCLUDES(mutex_);
  // Opens it again; one that cannot be is tried again when somebody asks for it.
  void take_back(const Uuid& volume) override CKPT_EXCLUDES(mutex_);
  // Where programs of this machine reach the daemon by its folder: a Unix socket in it, whatever
  // the length of its path. Valid as long as the shelf.
  [[nodiscard]] Address own_address() const;
  // Nobody listens there any more.
  void remove_socket() { (void)directory_->remove(kBackupdSocketName); }
  // Those of appliers, and of relays. kBusy: the system has no thread more.
  Result<> start_pumps(std::vector<RelayTarget> relays, LogLine log) CKPT_EXCLUDES(mutex_);
  // Ends the pumps; what is confirmed stays so, and is applied after the next start. No connection
  // may be left.
  void close() CKPT_EXCLUDES(mutex_);
  // Those that are open, and the errors of those that are not.
  [[nodiscard]] std::vector<ShelfLine> list() CKPT_EXCLUDES(mutex_);
  [[nodiscard]] std::map<Uuid, Error> damaged() CKPT_EXCLUDES(mutex_);

 private:
  // A volume, and its pump.
  struct Place {
    std::shared_ptr<ServedVolume> volume;  // connections have it too
    std::future<void> closed;              // nobody has it any more, and its folder is not locked
    std::unique_ptr<Waker> waker;
    std::unique_ptr<std::atomic<bool>> ending;
    std::thread pump;
    std::vector<std::unique_ptr<RelayPump>> relays{};
  };

  // Why one could not be opened.
  struct Damage {
    Error error;
    SteadyTime seen_at{};
    std::string name{};  // of the volume
  };

  explicit Shelf(std::string path) : path_(std::move(path)) {}
  Result<> lock();
  Result<> open_all() CKPT_REQUIRES(mutex_);
  Result<Place> open_place(const Uuid& volume, std::optional<uint64_t> size_bytes);
  // The same; an error says what to do with a damaged one.
  Result<Place> open_advised(const Uuid& volume, std::optional<uint64_t> size_bytes);
  std::shared_ptr<ServedVolume> find_open(const Uuid& volume) CKPT_EXCLUDES(mutex_);
  Result<std::shared_ptr<ServedVolume>> open_missing(const Hello& hello, bool may_make)
      CKPT_EXCLUDES(mutex_);
  Result<std::optional<uint64_t>> begin_opening(const Hello& hello, bool may_make)
      CKPT_EXCLUDES(mutex_);
  [[nodiscard]] bool is_there(const Uuid& volume) const;
  [[nodiscard]] std::string path_of(const Uuid& volume) const;
  // Of one that cannot be opened: with its name, as far as that can be read.
  [[nodiscard]] Damage damage_of(const Uuid& volume, const Error& error) const;
  Result<std::shared_ptr<ServedVolume>> add(const Uuid& volume, Result<Place> place)
      CKPT_REQUIRES(mutex_);
  void share_presence(const Uuid& volume, const Place& place) CKPT_REQUIRES(mutex_);
  Result<ServedVolume*> begin_release(const Uuid& volume) CKPT_EXCLUDES(mutex_);
  std::optional<Place> take_out(const Uuid& volume) CKPT_EXCLUDES(mutex_);
  static void ask_to_end(Place& place);
  static void join(Place& place);
  Result<> start_pumps_of(Place& place) CKPT_REQUIRES(mutex_);
  void start_relays(Place& place) CKPT_REQUIRES(mutex_);
  Result<std::unique_ptr<RelayPump>> start_relay(const Place& place, const RelayTarget& target)
      CKPT_REQUIRES(mutex_);
  static void apply(Store& store, Waker& waker, const std::atomic<bool>& ending);

  const std::string path_;
  std::unique_ptr<PosixDirectory> directory_;
  Mutex mutex_;
  bool is_pumping_ CKPT_GUARDED_BY(mutex_) = false;
  std::vector<RelayTarget> relays_ CKPT_GUARDED_BY(mutex_);
  LogLine log_ CKPT_GUARDED_BY(mutex_);
  std::map<Uuid, Place> places_ CKPT_GUARDED_BY(mutex_);
  std::map<Uuid, Damage> damaged_ CKPT_GUARDED_BY(mutex_);
  std::set<Uuid> opening_ CKPT_GUARDED_BY(mutex_);
  // Whether a volume's primary is there outlives that another program has it.
  std::map<Uuid, std::shared_ptr<std::atomic<PrimaryPresence>>> presences_ CKPT_GUARDED_BY(mutex_);
  std::set<Uuid> released_ CKPT_GUARDED_BY(mutex_);  // another program has them
};

}  // namespace ckpt
