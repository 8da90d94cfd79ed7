// SPDX-License-Identifier: Apache-2.0
#include "plugin/store_lock.h"

#include <sys/file.h>

#include <cerrno>
#include <thread>

#include "common/clock.h"
#include "common/fd.h"

namespace ckpt {
namespace {

constexpr std::chrono::milliseconds kPatience{1000};
constexpr std::chrono::milliseconds kPause{50};

// False: another program has it.
Result<bool> take_lock(const PosixDirectory& directory, const std::string& path) {
  if (::flock(directory.fd(), LOCK_EX | LOCK_NB) == 0) {
    return true;
  }
  return errno == EWOULDBLOCK ? Result<bool>(false) : fail_errno(errno, "flock " + path);
}

Unexpected in_use(const std::string& path, const std::string& why) {
  return fail(ErrorKind::kBusy,
              path +
                  " is in use by a server, a backupd or another tool: stop it for as long as this "
                  "takes" +
                  (why.empty() ? "" : " (" + why + ")"));
}

}  // namespace

Result<StoreLock> StoreLock::reach(const std::string& path, const std::optional<Address>& backupd) {
  StoreLock lock;
  lock.path_ = path;
  CKPT_ASSIGN(lock.directory, PosixDirectory::open(path, false, RingUse{}));
  CKPT_ASSIGN(const bool is_locked, take_lock(*lock.directory, path));
  CKPT_TRY(is_locked ? Result<>() : lock.call_backupd(backupd));
  return lock;
}

Result<> StoreLock::call_backupd(const std::optional<Address>& backupd) {
  auto own = own_backupd(path_, backupd);
  if (!own) {
    return in_use(path_, "");  // an embedded one
  }
  above_ = std::move(own->above);
  RemoteOptions remote;
  remote.address = own->address;
  dialer_ = std::make_unique<StoreDialer>(std::move(remote), connect_by_socket);
  auto call = dialer_->dial(Role::kVisitor);
  if (!call) {
    return backupd ? within(path_ + " is in use", call.error())
                   : in_use(path_, "no backupd can be asked for it at " + own->shown + ": " +
                                       call.error().message());
  }
  if (((**call)->welcome().features & kReleases) == 0) {
    return in_use(path_, "its backupd is of a version that cannot be asked for it");
  }
  call_ = std::move(*call);
  volume_ = own->volume;
  return {};
}

Result<> StoreLock::take(bool force) {
  if (volume_.is_nil()) {
    return {};
  }
  // A connection that has just ended may not be known to have, or another call not be over.
  const SteadyTime until = system_clock().steady() + kPatience;
  auto done = ask_release(force);
  while (!done && done.error().kind == ErrorKind::kBusy && system_clock().steady() < until) {
    std::this_thread::sleep_for(kPause);
    done = ask_release(force);
  }
  if (!done) {
    return within(path_, done.error());
  }
  CKPT_ASSIGN(const bool is_locked, take_lock(*directory, path_));
  return is_locked ? Result<>() : in_use(path_, "");
}

// Who was asked first may have taken so long that the connection was given up.
Result<> StoreLock::ask_release(bool force) {
  if (call_->is_over()) {
    call_.reset();
    CKPT_ASSIGN(call_, dialer_->dial(Role::kVisitor));
  }
  CKPT_TRY((*call_)->ask(FrameType::kRelease, encode_release({volume_, force}), FrameType::kDone));
  return {};
}

}  // namespace ckpt
