// SPDX-License-Identifier: Apache-2.0
// What a checkpoint says of the virtual machine that is saved with it: its attachment "vm".
//
// Format: docs/vm-format.md
#pragma once

#include <optional>

#include "common/store_link.h"
#include "tools/virtual_machine.h"

namespace ckpt {

inline constexpr const char* kVmAttachment = "vm";
inline constexpr const char* kMemoryAttachment = "vm-memory";
// More is not believed.
inline constexpr size_t kVmRecordBytesMax = size_t{1} << 20U;

// A disk of the machine, and its checkpoint of this instant.
struct VmVolume {
  Uuid volume;
  Epoch checkpoint;
  std::string device;  // what it is called in QEMU
  bool operator==(const VmVolume&) const = default;
};

struct VmRecord {
  Uuid group;                     // of this instant: the same in the checkpoints of all its volumes
  std::vector<VmVolume> volumes;  // this one too; at least one
  std::optional<Uuid>
      memory{};  // the volume whose checkpoint has the memory; nothing: none was saved
  VmFacts machine;
  std::vector<std::string> command;  // words that QEMU was started with; empty: not known
  std::string directory;             // in which; empty: not known
};

std::string encode_vm_record(const VmRecord& record);
// kCorrupt: it is not as its format says.
Result<VmRecord> decode_vm_record(const std::string& text);

}  // namespace ckpt
