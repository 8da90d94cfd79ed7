// SPDX-License-Identifier: Apache-2.0
// A store that connections share: one of them has its session.
#pragma once

#include <atomic>
#include <functional>
#include <map>
#include <memory>
#include <optional>

#include "backupd/store/store.h"
#include "common/message.h"
#include "common/volume_message.h"

namespace ckpt {

// Who has the session, or wants it.
struct SessionOwner {
  uint64_t connection = 0;              // its number; 0: nobody
  std::optional<PrimaryPlace> place{};  // nothing: it was not said, and may be any
  std::string peer{};                   // for people: where the connection comes from; may be empty
};

// Threads: any.
class ServedVolume {
 public:
  ServedVolume(std::unique_ptr<Store> store, uint64_t size_bytes, std::string name = "")
      : store_(std::move(store)), size_bytes_(size_bytes), name_(std::move(name)) {}

  [[nodiscard]] uint64_t size_bytes() const { return size_bytes_; }
  // What its primary calls it; empty: not said yet.
  [[nodiscard]] std::string name() CKPT_EXCLUDES(name_mutex_) {
    const MutexLock lock(name_mutex_);
    return name_;
  }
  // One that is another than before is kept by that act first.
  Result<> set_name(const std::string& name, const std::function<Result<>()>& keep)
      CKPT_EXCLUDES(naming_mutex_, name_mutex_) {
    const MutexLock naming(naming_mutex_);
    if (name == this->name()) {
      return {};
    }
    CKPT_TRY(keep());
    const MutexLock lock(name_mutex_);
    name_ = name;
    return {};
  }
  // For what needs no session: reads, exports, lists.
  Store& store() { return *store_; }
  // The store's, what its relays say, and whether its primary is there.
  [[nodiscard]] StoreStatus status() CKPT_EXCLUDES(relays_mutex_) {
    StoreStatus status = store_->status();
    const MutexLock lock(relays_mutex_);
    status.relays = relays_ ? relays_() : std::vector<RelayState>();
    status.primary = primary_->load();
    return status;
  }
  // Where it is kept whether its primary is there, if that is to outlive this. Before it is used.
  void share_presence(std::shared_ptr<std::atomic<PrimaryPresence>> presence) {
    primary_ = std::move(presence);
  }
  // Nothing: there are none (any more).
  void set_relays(std::function<std::vector<RelayState>()> relays) CKPT_EXCLUDES(relays_mutex_) {
    const MutexLock lock(relays_mutex_);
    relays_ = std::move(relays);
  }

  // Takes the session over. Waits for what the one before has under way; nothing of it is accepted
  // any more. kBusy: that one is of another primary, which was accepted and is still there; it
  // notices nothing.
  Result<StoreGreeting> begin_session(const SessionOwner& owner) CKPT_EXCLUDES(mutex_);
  // Accepts that session's primary: no other has a session from then on, until it leaves.
  // tells_stop: when it stops, it says so; of one that does not nobody can say whether it died.
  Result<> accept(uint64_t connection, uint64_t incarnation, bool tells_stop = true)
      CKPT_EXCLUDES(mutex_);
  // Its primary gives its role up to the store (StoreLink::promote()), and is none from then on.
  Result<> promote(uint64_t connection, const Fork& fork) CKPT_EXCLUDES(mutex_);
  // Its primary stops by its own will, and will be away.
  Result<> stop(uint64_t connection) CKPT_EXCLUDES(mutex_);
  // An act of the session. kFenced: another connection has it.
  template <typename Act>
  Result<> in_session(uint64_t connection, const Act& act) CKPT_EXCLUDES(mutex_) {
    const MutexLock lock(mutex_);
    CKPT_TRY(check_owner(connection));
    return act(*store_);
  }
  // A connection uses it from here on, and may be ended by that act: by any thread, which waits for
  // nothing. kBusy: it is being let go of.
  Result<> join(uint64_t connection, std::function<void()> end) CKPT_EXCLUDES(users_mutex_);
  // The connection has ended. What its session shipped stays pending until the next one begins.
  void leave(uint64_t connection) CKPT_EXCLUDES(mutex_, users_mutex_);
  // Ends all connections; there will be no others. Returns when what a session has under way is
  // done. kBusy, unless forced: its primary is there, and notices nothing.
  Result<> retire(bool force) CKPT_EXCLUDES(mutex_, users_mutex_);

 private:
  [[nodiscard]] Result<> check_owner(uint64_t connection) const CKPT_REQUIRES(mutex_);
  [[nodiscard]] Result<> check_only_primary(const SessionOwner& next) const CKPT_REQUIRES(mutex_);
  [[nodiscard]] Result<> check_no_primary() const CKPT_REQUIRES(mutex_);
  [[nodiscard]] Result<> check_kept() const CKPT_REQUIRES(mutex_);
  void end_users() CKPT_EXCLUDES(users_mutex_);

  const std::unique_ptr<Store> store_;
  const uint64_t size_bytes_;
  Mutex mutex_;
  SessionOwner owner_ CKPT_GUARDED_BY(mutex_);
  bool is_accepted_ CKPT_GUARDED_BY(mutex_) = false;
  // That of the last accepted primary, and the connection on which it said that it stops; 0: none.
  std::optional<PrimaryPlace> accepted_ CKPT_GUARDED_BY(mutex_);
  uint64_t stopping_ CKPT_GUARDED_BY(mutex_) = 0;
  // Written with the mutex; whoever asks does not wait for what the session has under way.
  std::shared_ptr<std::atomic<PrimaryPresence>> primary_ =
      std::make_shared<std::atomic<PrimaryPresence>>(PrimaryPresence::kNever);
  bool is_retired_ CKPT_GUARDED_BY(mutex_) = false;
  Mutex users_mutex_;
  std::map<uint64_t, std::function<void()>> users_ CKPT_GUARDED_BY(users_mutex_);  // how they end
  bool takes_users_ CKPT_GUARDED_BY(users_mutex_) = true;
  Mutex relays_mutex_;
  std::function<std::vector<RelayState>()> relays_ CKPT_GUARDED_BY(relays_mutex_);
  Mutex naming_mutex_;  // before the other one: a name is written at a time
  Mutex name_mutex_;
  std::string name_ CKPT_GUARDED_BY(name_mutex_);
};

// What a daemon has. Threads: any.
class VolumeShelf {
 public:
  virtual ~VolumeShelf() = default;
  // The volume that hello asks for; a session's is made if it is not there. kNotFound; kInvalid: of
  // another size; kDenied: it would have to be made, and may not.
  virtual Result<std::shared_ptr<ServedVolume>> find(const Hello& hello, bool may_make) = 0;
  // All that are there, in the order of their UUIDs; one that cannot be opened has size 0.
  virtual std::vector<NamedVolume> volumes() = 0;
  // Keeps what the primary of a volume that was found calls it.
  virtual Result<> set_name(const Uuid& volume, const std::string& name) = 0;
  // Lets go of a volume: its folder is closed and not locked, for another program, until
  // take_back(). kNotFound; kBusy: its primary is connected (not if forced), or it is released.
  virtual Result<> release(const Uuid& volume, bool force) = 0;
  virtual void take_back(const Uuid& volume) = 0;
};

}  // namespace ckpt
