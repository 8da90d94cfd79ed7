// SPDX-License-Identifier: Apache-2.0
#include "tools/vm_disks.h"

#include <algorithm>
#include <optional>

#include "common/text.h"
#include "plugin/own_export.h"
#include "tools/destination.h"

namespace ckpt {
namespace {

// What the server of a disk says of it; empty: nothing, or it cannot be asked.
std::string description_of(const std::string& uri) {
  const auto server = open_nbd_destination(uri);
  return server ? (*server)->description() : "";
}

std::optional<size_t> find_volume_of(const VmDisk& disk, const std::vector<VolumeStatus>& volumes,
                                     const std::string& description) {
  const auto found = std::ranges::find_if(volumes, [&](const VolumeStatus& volume) {
    return description == describe_export(volume.volume) ||
           std::ranges::find(volume.uris, disk.uri) != volume.uris.end();
  });
  return found != volumes.end() ? std::optional<size_t>(found - volumes.begin()) : std::nullopt;
}

std::string called(const VmDisk& disk) {
  return disk.uri.empty() ? disk.device : disk.device + " (" + printable(disk.uri) + ")";
}

std::string list_of(const std::vector<VmDisk>& disks) {
  std::string list;
  for (const VmDisk& disk : disks) {
    list += (list.empty() ? "" : ", ") + called(disk);
  }
  return list;
}

// QEMU has caches of its own of other formats, which do not go back.
Result<> check_raw(const VmDisk& disk, const VolumeStatus& volume) {
  return disk.driver == "nbd" || disk.driver == "raw"
             ? Result<>()
             : Result<>(fail(ErrorKind::kInvalid,
                             volume.image + " is used as " + disk.driver + " by " + called(disk) +
                                 ": only a raw disk can go back below a machine"));
}

}  // namespace

Result<VmDisks> check_vm_disks(VirtualMachine& machine, const std::vector<VolumeStatus>& volumes) {
  CKPT_ASSIGN(const auto disks, machine.disks());
  VmDisks found{std::vector<std::string>(volumes.size()), {}};
  for (const VmDisk& disk : disks) {
    const std::string description = disk.uri.empty() ? "" : description_of(disk.uri);
    if (const auto index = find_volume_of(disk, volumes, description)) {
      CKPT_TRY(check_raw(disk, volumes[*index]));
      found.devices[*index] = disk.device;
    } else if (description.starts_with("ckpt volume ")) {
      return fail(ErrorKind::kInvalid, called(disk) + " is " + printable(description) +
                                           ": give it, too (--with VOLUME), so that all are of "
                                           "one instant");
    } else if (disk.writable) {
      found.others.push_back(called(disk));
    }
  }
  for (size_t i = 0; i < volumes.size(); ++i) {
    if (found.devices[i].empty()) {
      return fail(ErrorKind::kInvalid, volumes[i].image +
                                           " is no disk of this machine, which has " +
                                           (disks.empty() ? "none" : list_of(disks)));
    }
  }
  return found;
}

}  // namespace ckpt
