// SPDX-License-Identifier: Apache-2.0
// The folder of a store for one program alone, whose turn it is: a tool's, that changes its role.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "common/block.h"
#include "common/fd.h"
#include "common/posix_file.h"
#include "common/store_dialer.h"
#include "plugin/own_backupd.h"

namespace ckpt {

// Threads:  one at a time.
// Lifetime: a backupd that had the store has it again afterwards, and serves what it has become. It
//           may take it back after its --silence; then the lock on the folder alone keeps it out.
class StoreLock {
 public:
  // Locks the folder, or reaches the backupd that has it: at that address, or by its socket in the
  // folder above. kBusy: a server or another tool has it, or a backupd that cannot be asked.
  static Result<StoreLock> reach(const std::string& path,
                                 const std::optional<Address>& backupd = std::nullopt);
  // Has that backupd let go of it: all connections with it end. kBusy: its primary is connected,
  // and it is not forced; or another program was faster.
  Result<> take(bool force);
  StoreLock(StoreLock&&) = default;
  // The folder is free before backupd hears of it.
  ~StoreLock() { directory.reset(); }

  // Locked once it is taken, as long as it is open.
  std::unique_ptr<PosixDirectory> directory;

 private:
  StoreLock() = default;
  Result<> call_backupd(const std::optional<Address>& backupd);
  Result<> ask_release(bool force);

  std::string path_;
  Uuid volume_;     // as its folder is called; nil: it is locked
  UniqueFd above_;  // of its OwnBackupd
  std::unique_ptr<StoreDialer> dialer_;
  std::unique_ptr<StoreDialer::Call> call_;  // what is let go of stays so until this ends
};

}  // namespace ckpt
