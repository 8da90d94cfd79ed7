// SPDX-License-Identifier: Apache-2.0
#include "backupd/served_volume.h"

namespace ckpt {
namespace {

bool is_another_primary(const SessionOwner& one, const SessionOwner& other) {
  return one.place && other.place && one.place->identity != other.place->identity;
}

}  // namespace

Result<StoreGreeting> ServedVolume::begin_session(const SessionOwner& owner) {
  const MutexLock lock(mutex_);
  CKPT_TRY(check_only_primary(owner));
  owner_ = owner;
  is_accepted_ = false;
  return store_->begin_session();
}

// A primary that has only begun may yet find that it has diverged: it keeps nobody else out.
Result<> ServedVolume::accept(uint64_t connection, uint64_t incarnation) {
  const MutexLock lock(mutex_);
  CKPT_TRY(check_owner(connection));
  CKPT_TRY(store_->accept(incarnation));
  is_accepted_ = true;
  return {};
}

void ServedVolume::leave(uint64_t connection) {
  const MutexLock lock(mutex_);
  if (owner_.connection == connection) {
    owner_ = {};
    is_accepted_ = false;
  }
}

Result<> ServedVolume::check_owner(uint64_t connection) const {
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
  const std::string from = owner_.peer.empty() ? "" : " (connected from " + owner_.peer + ")";
  return fail(ErrorKind::kBusy, "it is served by " + owner_.place->to_string() + from +
                                    ", and this is " + next.place->to_string() +
                                    ": a volume has one primary at a time, stop one of them");
}

}  // namespace ckpt
