// SPDX-License-Identifier: Apache-2.0
// A store that connections share: one of them has its session.
#pragma once

#include <functional>
#include <memory>

#include "backupd/store/store.h"
#include "common/message.h"
#include "common/volume_message.h"

namespace ckpt {

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
  // For what needs no session: reads, exports, lists, status.
  Store& store() { return *store_; }

  // Takes the session over. Waits for what the one before has under way; nothing of it is accepted
  // any more.
  Result<StoreGreeting> begin_session(uint64_t connection) CKPT_EXCLUDES(mutex_) {
    const MutexLock lock(mutex_);
    owner_ = connection;
    return store_->begin_session();
  }
  // An act of the session. kFenced: another connection has it.
  template <typename Act>
  Result<> in_session(uint64_t connection, const Act& act) CKPT_EXCLUDES(mutex_) {
    const MutexLock lock(mutex_);
    if (owner_ != connection) {
      CKPT_PROBE(request_of_a_fenced_session);
      return fail(ErrorKind::kFenced,
                  owner_ == 0 ? "no session has begun on this connection"
                              : "another connection has begun a session with this volume");
    }
    return act(*store_);
  }
  // The connection has ended. What its session shipped stays pending until the next one begins.
  void leave(uint64_t connection) CKPT_EXCLUDES(mutex_) {
    const MutexLock lock(mutex_);
    owner_ = owner_ == connection ? 0 : owner_;
  }

 private:
  const std::unique_ptr<Store> store_;
  const uint64_t size_bytes_;
  Mutex mutex_;
  uint64_t owner_ CKPT_GUARDED_BY(mutex_) = 0;  // the number of a connection; 0: nobody
  Mutex naming_mutex_;                          // before the other one: a name is written at a time
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
};

}  // namespace ckpt
