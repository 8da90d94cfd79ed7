// SPDX-License-Identifier: Apache-2.0
// A virtual machine that goes back to a checkpoint, its disks and its memory together: in place, or
// as a new one.
#pragma once

#include "tools/saved_machine.h"

namespace ckpt {

struct VmRollbackOutcome {
  RollbackOutcome disk;
  std::chrono::nanoseconds paused{};  // in place: how long the machine stood still
  std::chrono::nanoseconds memory{};  // of that, to load the memory
  pid_t pid = 0;                      // of QEMU, where it was started
};

// In place. The machine stands still meanwhile, and then runs if `runs`.
//
// Failure: kHalfway: it stands still and is of no instant, and is not to run; what to do is said.
//          Else it is as it was.
Result<VmRollbackOutcome> roll_back_in_place(VirtualMachine& machine, SavedMachine& saved,
                                             bool runs, const Progress& progress);

// How a new QEMU is started.
struct VmStart {
  std::vector<std::string> words;
  std::string directory;  // empty: this process's
  std::string log;        // where it appends what it says
};

// As a new process, which outlives this one.
//
// Failure: kHalfway: the disks have gone back, and there is no machine; the same once more goes on.
//          Else nothing has changed.
Result<VmRollbackOutcome> roll_back_into_new(const VmStart& start, SavedMachine& saved, bool runs,
                                             const Progress& progress);

}  // namespace ckpt
