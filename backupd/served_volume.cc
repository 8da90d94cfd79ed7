// SPDX-License-Identifier: Apache-2.0
#include "backupd/served_volume.h"

namespace ckpt {
namespace {

bool is_another_primary(const SessionOwner& one, const SessionOwner& other) {
  return one.place && other.place && one.place->identity != other.place->identity;
}

// For people.
std::string name_of(const SessionOwner& owner) {
  const std::string where = owner.place ? owner.place->to_string() : "";
  const std::string from = owner.peer.empty() ? "" : "connected from " + owner.peer;
  return where.empty() ? from : from.empty() ? where : where + " (" + from + ")";
}

}  // namespace

Result<StoreGreeting> ServedVolume::begin_session(const SessionOwner& owner) {
  const MutexLock lock(mutex_);
  CKPT_TRY(check_kept());
  CKPT_TRY(check_only_primary(owner));
  const bool is_back = accepted_ && !is_another_primary({.place = accepted_}, owner);
  owner_ = owner;
  is_accepted_ = false;
  // The one that was away is alive, whether the store takes it again or not.
  if (is_back && primary_->load() == PrimaryPresence::kAway) {
    primary_->store(PrimaryPresence::kConnected);
  }
  return store_->begin_session();
}

// A primary that has only begun may yet find that it has diverged: it keeps nobody else out.
Result<> ServedVolume::accept(uint64_t connection, uint64_t incarnation, bool tells_stop) {
  const MutexLock lock(mutex_);
  CKPT_TRY(check_owner(connection));
  CKPT_TRY(store_->accept(incarnation));
  is_accepted_ = true;
  accepted_ = owner_.place;
  primary_->store(tells_stop ? PrimaryPresence::kConnected : PrimaryPresence::kNotSaid);
  return {};
}

Result<> ServedVolume::stop(uint64_t connection) {
  const MutexLock lock(mutex_);
  CKPT_TRY(check_owner(connection));
  stopping_ = connection;
  return {};
}

Result<> ServedVolume::join(uint64_t connection, std::function<void()> end) {
  const MutexLock lock(users_mutex_);
  if (!takes_users_) {
    return fail(ErrorKind::kBusy, "the back-up is just letting go of this volume");
  }
  users_.emplace(connection, std::move(end));
  return {};
}

void ServedVolume::leave(uint64_t connection) {
  {
    const MutexLock lock(users_mutex_);
    users_.erase(connection);
  }
  const MutexLock lock(mutex_);
  if (owner_.connection != connection) {
    return;
  }
  owner_ = {};
  is_accepted_ = false;
  // It may have begun anew on this connection, and not been accepted again.
  if (primary_->load() == PrimaryPresence::kConnected) {
    primary_->store(stopping_ == connection ? PrimaryPresence::kStopped : PrimaryPresence::kAway);
  }
}

Result<> ServedVolume::retire(bool force) {
  if (force) {
    end_users();  // one may hold up what the session has under way
  }
  {
    const MutexLock lock(mutex_);
    CKPT_TRY(force ? Result<>() : check_no_primary());
    is_retired_ = true;
  }
  end_users();
  return {};
}

void ServedVolume::end_users() {
  const MutexLock lock(users_mutex_);
  takes_users_ = false;
  for (const auto& [connection, end] : users_) {
    end();
  }
}

Result<> ServedVolume::promote(uint64_t connection, const Fork& fork) {
  const MutexLock lock(mutex_);
  CKPT_TRY(check_owner(connection));
  CKPT_TRY(store_->promote(fork.from, fork.to));
  is_accepted_ = false;
  stopping_ = connection;
  return {};
}

Result<> ServedVolume::check_kept() const {
  return is_retired_ ? fail(ErrorKind::kUnreachable, "the back-up lets go of this volume")
                     : Result<>();
}

Result<> ServedVolume::check_owner(uint64_t connection) const {
  CKPT_TRY(check_kept());
  if (owner_.connection == connection) {
    return {};
  }
  CKPT_PROBE(request_of_a_fenced_session);
  return fail(ErrorKind::kFenced, owner_.connection == 0
                                      ? "no session has begun on this connection"
                                      : "another connection has begun a session with this volume");
}

Result<> ServedVolume::check_only_primary(const SessionOwner& next) const {
  if (!is_accepted_ || !is_another_primary(owner_, next)) {
    return {};
  }
  return fail(ErrorKind::kBusy, "it is served by " + name_of(owner_) + ", and this is " +
                                    next.place->to_string() +
                                    ": a volume has one primary at a time, stop one of them");
}

Result<> ServedVolume::check_no_primary() const {
  return is_accepted_ ? fail(ErrorKind::kBusy,
                             "its primary is connected: " + name_of(owner_) +
                                 ". Where that is dead, its connection is given up after a "
                                 "while; see to it that it is, then --force need not wait")
                      : Result<>();
}

}  // namespace ckpt
