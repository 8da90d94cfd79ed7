// SPDX-License-Identifier: Apache-2.0
#include "plugin/store_lock.h"

#include <fcntl.h>
#include <sys/file.h>

#include <cerrno>
#include <filesystem>
#include <thread>

#include "common/clock.h"
#include "common/fd.h"

namespace ckpt {
namespace {

namespace fs = std::filesystem;

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

Result<StoreLock> StoreLock::take(const std::string& path, const StoreLockOptions& options) {
  StoreLock lock;
  CKPT_ASSIGN(lock.directory, PosixDirectory::open(path, false, RingUse{}));
  CKPT_ASSIGN(bool is_locked, take_lock(*lock.directory, path));
  if (!is_locked) {
    CKPT_TRY(lock.ask_backupd(path, options));
    CKPT_ASSIGN(is_locked, take_lock(*lock.directory, path));
  }
  return is_locked ? Result<StoreLock>(std::move(lock)) : in_use(path, "");
}

Result<> StoreLock::ask_backupd(const std::string& path, const StoreLockOptions& options) {
  std::error_code ignored;
  const fs::path folder = fs::canonical(path, ignored);
  const auto volume = Uuid::parse(folder.filename().string());
  if (!volume) {
    return in_use(path, "");  // an embedded one
  }
  const std::string shelf = folder.parent_path().string();
  const UniqueFd above(::open(shelf.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
  RemoteOptions remote;
  // By which a long path is short.
  remote.address = options.backupd.value_or(
      Address{"/proc/self/fd/" + std::to_string(above.get()) + "/" + kBackupdSocketName, "", ""});
  dialer_ = std::make_unique<StoreDialer>(std::move(remote), connect_by_socket);
  auto call = dialer_->dial(Role::kVisitor);
  if (!call) {
    return options.backupd ? within(path + " is in use", call.error())
                           : in_use(path, "no backupd can be asked for it at " + shelf + "/" +
                                              kBackupdSocketName + ": " + call.error().message());
  }
  call_ = std::move(*call);
  if (((*call_)->welcome().features & kReleases) == 0) {
    return in_use(path, "its backupd is of a version that cannot be asked for it");
  }
  // A connection that has just ended may not be known to have, or another call not be over.
  const SteadyTime until = system_clock().steady() + kPatience;
  auto done = ask_release(*volume, options.force);
  while (!done && done.error().kind == ErrorKind::kBusy && system_clock().steady() < until) {
    std::this_thread::sleep_for(kPause);
    done = ask_release(*volume, options.force);
  }
  return done ? Result<>() : within(path, done.error());
}

Result<> StoreLock::ask_release(const Uuid& volume, bool force) {
  CKPT_TRY((*call_)->ask(FrameType::kRelease, encode_release({volume, force}), FrameType::kDone));
  return {};
}

}  // namespace ckpt
