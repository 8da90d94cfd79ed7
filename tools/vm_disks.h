// SPDX-License-Identifier: Apache-2.0
// Which of a virtual machine's disks are volumes.
#pragma once

#include <string>
#include <vector>

#include "plugin/volume_api.h"
#include "tools/virtual_machine.h"

namespace ckpt {

struct VmDisks {
  std::vector<std::string>
      devices;  // of each volume, in the order given: what it is called in QEMU
  // Those that can be written and are no volumes, for people: what is on them is not saved, and
  // does not go back.
  std::vector<std::string> others;
};

// All of these volumes are disks of the machine, and it has no others.
//
// kInvalid: a volume is no disk of it; one that was not given is; something is made of a volume
// (such as qcow2) whose caches QEMU has.
Result<VmDisks> check_vm_disks(VirtualMachine& machine, const std::vector<VolumeStatus>& volumes);

}  // namespace ckpt
