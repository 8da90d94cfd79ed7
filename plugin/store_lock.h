// SPDX-License-Identifier: Apache-2.0
// The folder of a store for one program alone, whose turn it is: a tool's, that changes its role.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "common/posix_file.h"
#include "common/store_dialer.h"

namespace ckpt {

struct StoreLockOptions {
  bool force = false;  // also while its primary is connected
  // Of the backupd that has it; nothing: it is asked by its socket in the folder above.
  std::optional<Address> backupd{};
};

// Threads:  one at a time.
// Lifetime: a backupd that had the store has it again afterwards, and serves what it has become.
// One
//           that is busy, or a lock that is held for longer than backupd's --silence, keeps that
//           from it no longer than the lock on the folder does.
class StoreLock {
 public:
  // Where a backupd has the store, it lets go of it: all connections with it end. kBusy: a server
  // or another tool has it, or a backupd that cannot be asked, or whose primary is connected.
  static Result<StoreLock> take(const std::string& path, const StoreLockOptions& options);
  StoreLock(StoreLock&&) = default;
  // The folder is free before backupd hears of it.
  ~StoreLock() { directory.reset(); }

  // Locked, as long as it is open.
  std::unique_ptr<PosixDirectory> directory;

 private:
  StoreLock() = default;
  Result<> ask_backupd(const std::string& path, const StoreLockOptions& options);
  Result<> ask_release(const Uuid& volume, bool force);

  std::unique_ptr<StoreDialer> dialer_;
  std::unique_ptr<StoreDialer::Call> call_;  // what is let go of stays so until this ends
};

}  // namespace ckpt
