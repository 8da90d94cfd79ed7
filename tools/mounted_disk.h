// SPDX-License-Identifier: Apache-2.0
// The disk of a volume with the file systems that are mounted from it, taken down for a rollback
// and brought up again: what the kernel has in its cache would be from the future.
#pragma once

#include "plugin/volume_api.h"
#include "tools/attached_disk.h"
#include "tools/process_record.h"

namespace ckpt {

class MountedDisk {
 public:
  // By its mounts, which are there now. kInvalid: one is not on the volume's disk.
  static Result<MountedDisk> find(const std::vector<std::string>& points,
                                  const VolumeStatus& status);
  // As it is on record; what is up of it is found out. kBusy: something else is at its place.
  static Result<MountedDisk> recorded(const ProcessRecord& record, const VolumeStatus& status);

  // What can be known before anything is done of why take_down() or bring_up() would fail;
  // processes in `except` will have ended by then. Waits 2 s for those that are just leaving.
  [[nodiscard]] Result<> check(const std::set<pid_t>& except = {}) const;
  // Of a disk that cannot be read any more: what the kernel has asked of a server that is gone. It
  // would wait for ever for the answers (nbd-client without -timeout), and so would a process, which
  // then does not end when it is killed. The disk stays mounted.
  [[nodiscard]] Result<> give_up_requests() const;
  // Unmounts all and detaches the disk; what is down already stays so. On an error all that was
  // taken down is up again; kHalfway: it is not, and what is left to do is said.
  Result<> take_down();
  // Attaches the disk and mounts all. kHalfway, with the commands that are left to do.
  Result<> bring_up();

  [[nodiscard]] const AttachedDisk& disk() const { return disk_; }
  [[nodiscard]] const std::vector<Mount>& mounts() const { return mounts_; }

 private:
  struct Up {
    std::vector<bool> mounts;
    bool disk = false;
  };
  MountedDisk(const Uuid& volume, AttachedDisk disk, std::vector<Mount> mounts, Up up)
      : volume_(volume), disk_(std::move(disk)), mounts_(std::move(mounts)), up_(std::move(up)) {}
  Result<> unmount_all();
  Result<> raise();

  Uuid volume_;
  AttachedDisk disk_;
  std::vector<Mount> mounts_;  // in the order of mounting
  Up up_;
};

// kInvalid: a folder is on one of the mounts, and would be rolled back with them.
Result<> check_elsewhere(const std::string& folder, const std::vector<Mount>& mounts);

// Takes the disk down, rolls back, and brings it up again; also where the rollback was refused.
// What it says meanwhile goes to progress. Failure: as those three.
Result<RollbackOutcome> roll_back_below(MountedDisk& disk, VolumeApi& volume,
                                        const RollbackRequest& request, const Progress& progress);

}  // namespace ckpt
