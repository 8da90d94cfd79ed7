// SPDX-License-Identifier: Apache-2.0
// The virtual machine of a checkpoint: its memory, and the volumes that go back with it.
#pragma once

#include "tools/open_volume.h"
#include "tools/vm_memory.h"
#include "tools/vm_record.h"

namespace ckpt {

// Threads: one. The volumes outlive it.
class SavedMachine {
 public:
  // Everything is fetched and checked, and nothing is changed. id: of a checkpoint of the first
  // volume.
  //
  // kNotFound: there is none, or it has no memory. kInvalid: it is of other volumes, too, or not of
  // these. kMismatch: not all of them have their checkpoint of that instant any more.
  static Result<SavedMachine> fetch(std::vector<OpenedVolume>& volumes, const std::string& id);

  // All volumes are still there to be gone back to.
  [[nodiscard]] Result<> check_kept() const;
  // All disks, one after the other; their clients' requests are held meanwhile. kHalfway: one has
  // gone back, and another has not. Else, on failure, none has, unless it says so.
  Result<RollbackOutcome> roll_back(const Progress& progress);

  // The volumes are the disks of this machine that they were, and it is like the one that was
  // saved. Returns its disks that do not go back. kInvalid, kMismatch.
  Result<std::vector<std::string>> check_machine(VirtualMachine& machine) const;
  // The image of each volume, and its checkpoint; that with the memory first.
  [[nodiscard]] std::vector<std::pair<std::string, Epoch>> images() const;

  [[nodiscard]] const VmRecord& record() const { return record_; }
  // The first volume's checkpoint.
  [[nodiscard]] const CheckpointInfo& target() const { return target_; }
  [[nodiscard]] const VmMemory& memory() const { return *memory_; }

 private:
  struct Member {
    OpenedVolume* opened = nullptr;
    VmVolume of;
  };
  SavedMachine() = default;
  Result<> find_members(std::vector<OpenedVolume>& volumes);
  Result<> check_group() const;
  Result<> fetch_memory();

  VmRecord record_;
  CheckpointInfo target_;
  std::vector<Member> members_;  // as the record has them
  std::unique_ptr<VmMemory> memory_;
};

}  // namespace ckpt
