// SPDX-License-Identifier: Apache-2.0
#include "tools/mounted_disk.h"

#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <filesystem>
#include <thread>

#include "common/clock.h"
#include "plugin/own_export.h"
#include "tools/fuse_disk.h"

namespace ckpt {
namespace {

constexpr std::chrono::seconds kLeavingPatience{2};
constexpr std::chrono::milliseconds kLeavingLook{100};

// A mount below another one comes after it.
void sort_by_point(std::vector<Mount>& mounts) {
  std::ranges::sort(mounts, {}, [](const Mount& mount) { return mount.point.size(); });
}

// What another mount of the disk has in its cache would not be in a checkpoint, and would be from
// the future after a rollback.
Result<> check_all_named(const std::vector<Mount>& named, uint64_t size_bytes,
                         const AttachedDisk& disk) {
  // As OwnExport::find() says it.
  const std::string name = disk.device.substr(disk.device.rfind('/') + 1);
  const std::string below = " (" + disk.file + ")";
  for (const Mount& mount : all_mounts()) {
    const bool is_named = std::ranges::find(named, mount.point, &Mount::point) != named.end();
    const std::string found = OwnExport(size_bytes).find(mount.device);
    if (!is_named && (disk.file.empty() ? found == name : found.ends_with(below))) {
      return fail(ErrorKind::kInvalid, mount.source + ", of the same disk, is also mounted at " +
                                           mount.point + ": unmount it there" +
                                           (mount.root == "/" ? ", or give --fs for it, too" : ""));
    }
  }
  return {};
}

// A loop device may have another number than at the checkpoint, and after a reboot its file another
// place.
AttachedDisk disk_of(const ProcessRecord& record, const VolumeStatus& status) {
  AttachedDisk disk{record.device, record.block_bytes, usable_uri(status.uris), record.file};
  if (disk.file.empty()) {
    return disk;
  }
  std::error_code ignored;
  if (!std::filesystem::exists(std::filesystem::path(disk.file).parent_path(), ignored)) {
    disk.file = fuse_file_of(status.volume);
  }
  if (const auto loops = loops_upon(disk.file); !loops.empty()) {
    disk.device = loops.front();
  }
  return disk;
}

// Of a mount from a device, or from a partition of it, that is another device now.
std::string moved(const std::string& source, const std::string& from, const std::string& to) {
  return source.starts_with(from) ? to + source.substr(from.size()) : source;
}

// Whether it is attached, and answers. kBusy: as something else.
Result<bool> is_up(const AttachedDisk& disk, const std::string& image) {
  CKPT_ASSIGN(const bool is_attached, has_size(disk));
  if (!is_attached) {
    return false;
  }
  // The kernel may have a loop device's content in its cache, but the file's is the server's.
  const auto same = check_content(disk.file.empty() ? disk.device : disk.file, image);
  if (!same && same.error().kind != ErrorKind::kUnreachable) {
    return Unexpected(same.error());
  }
  // One that cannot be read has lost its server, and is as good as detached.
  return disk.file.empty() || (same && !loops_upon(disk.file).empty());
}

std::string how_to_attach(const AttachedDisk& disk) {
  return disk.file.empty()
             ? "attach " + disk.device + " to " + disk.uri
             : "serve the disk with nbdfuse " + disk.file + " " + disk.uri +
                   ", and make a loop device of it (losetup --find --partscan --show)";
}

// All in one line; empty: nobody.
std::string users_in_line(const Mount& mount, const std::set<pid_t>& except) {
  std::string line;
  for (const std::string& user : users_of(mount, except)) {
    line += (line.empty() ? "" : "; ") + user;
  }
  return line;
}

}  // namespace

Result<> check_elsewhere(const std::string& folder, const std::vector<Mount>& mounts) {
  struct stat status {};
  if (::stat(folder.c_str(), &status) != 0) {
    return fail_errno(errno, folder);
  }
  for (const Mount& mount : mounts) {
    if (mount.device != 0 && status.st_dev == mount.device) {
      return fail(ErrorKind::kInvalid, folder + " is on the volume itself, at " + mount.point +
                                           ": give another folder for the images (--images)");
    }
  }
  return {};
}

Result<MountedDisk> MountedDisk::find(const std::vector<std::string>& points,
                                      const VolumeStatus& status) {
  std::vector<Mount> mounts;
  AttachedDisk disk;
  for (const std::string& point : points) {
    CKPT_ASSIGN(const Mount mount, find_mount(point));
    CKPT_ASSIGN(disk, find_disk(mount, status));
    mounts.push_back(mount);
  }
  CKPT_TRY(check_all_named(mounts, status.size_bytes, disk));
  sort_by_point(mounts);
  Up up{std::vector<bool>(mounts.size(), true), true};
  return MountedDisk(status.volume, std::move(disk), std::move(mounts), std::move(up));
}

Result<MountedDisk> MountedDisk::recorded(const ProcessRecord& record, const VolumeStatus& status) {
  AttachedDisk disk = disk_of(record, status);
  std::vector<Mount> mounts;
  Up up;
  for (MountRecord one : record.mounts) {
    one.source = moved(one.source, record.device, disk.device);
    const auto there = find_mount(one.point);
    if (there && there->source != one.source) {
      return fail(ErrorKind::kBusy, one.point + ": " + there->source +
                                        " is mounted here, and was " + one.source +
                                        " at the checkpoint: unmount it first");
    }
    if (!there && there.error().kind != ErrorKind::kNotFound) {
      return Unexpected(there.error());
    }
    mounts.push_back(there ? *there : Mount{one.point, one.source, one.type, one.options, 0, "/"});
    up.mounts.push_back(there.has_value());
  }
  CKPT_ASSIGN(up.disk, is_up(disk, status.image));
  return MountedDisk(status.volume, std::move(disk), std::move(mounts), std::move(up));
}

Result<> MountedDisk::unmount_all() {
  for (size_t i = mounts_.size(); i-- > 0;) {
    if (up_.mounts[i]) {
      CKPT_TRY(unmount(mounts_[i]));
      up_.mounts[i] = false;
    }
  }
  return {};
}

Result<> MountedDisk::check(const std::set<pid_t>& except) const {
  if (disk_.uri.empty()) {
    return fail(ErrorKind::kInvalid, disk_.device +
                                         ": the volume's server listens nowhere that nbd-client, "
                                         "or nbdfuse, could attach it to again; nothing was done");
  }
  CKPT_TRY(check_server(disk_.uri, volume_));
  if (auto alone = disk_.file.empty() ? Result<>() : check_only_user(disk_); !alone) {
    return fail(alone.error().kind, alone.error().message() + "; nothing was done");
  }
  for (size_t i = 0; i < mounts_.size(); ++i) {
    const SteadyTime deadline = system_clock().steady() + kLeavingPatience;
    for (std::string users = users_in_line(mounts_[i], except); up_.mounts[i] && !users.empty();
         users = users_in_line(mounts_[i], except)) {
      if (system_clock().steady() >= deadline) {
        return fail(ErrorKind::kBusy,
                    mounts_[i].point + " is in use: " + users + "; nothing was done");
      }
      std::this_thread::sleep_for(kLeavingLook);
    }
  }
  return {};
}

Result<> MountedDisk::take_down() {
  CKPT_TRY(check());
  auto down = unmount_all();
  const auto is_attached = has_size(disk_);
  if (down && is_attached) {
    down = *is_attached ? detach(disk_) : Result<>();
    up_.disk = !down && disk_.file.empty();  // of the other kind a part may be gone
  }
  if (down) {
    return down;
  }
  auto up = bring_up();
  return up ? down : Result<>(within(down.error().message(), up.error()));
}

Result<> MountedDisk::give_up_requests() const {
  const auto is_attached = has_size(disk_);
  const bool is_dead = disk_.file.empty() && is_attached && *is_attached && !can_read(disk_);
  return is_dead ? disconnect(disk_) : Result<>();
}

Result<> MountedDisk::raise() {
  const bool is_mounted = std::ranges::find(up_.mounts, true) != up_.mounts.end();
  if (!up_.disk && !is_mounted) {
    const std::string before = disk_.device;
    CKPT_TRY(attach(disk_));
    up_.disk = true;
    for (Mount& mount : mounts_) {
      mount.source = moved(mount.source, before, disk_.device);
    }
  }
  for (size_t i = 0; i < mounts_.size(); ++i) {
    if (!up_.mounts[i]) {
      CKPT_TRY(mount_again(mounts_[i]));
      up_.mounts[i] = true;
    }
  }
  return {};
}

Result<> MountedDisk::bring_up() {
  auto up = raise();
  if (up) {
    return up;
  }
  std::string left;
  if (!up_.disk) {
    left = "; " + how_to_attach(disk_);
  }
  for (size_t i = 0; i < mounts_.size(); ++i) {
    if (!up_.mounts[i]) {
      left += "; mount " + mounts_[i].source + " at " + mounts_[i].point;
    }
  }
  return fail(ErrorKind::kHalfway, up.error().message() + ". What is left to do" + left);
}

Result<RollbackOutcome> roll_back_below(MountedDisk& disk, VolumeApi& volume,
                                        const RollbackRequest& request, const Progress& progress) {
  CKPT_TRY(disk.take_down());
  auto outcome = volume.roll_back(request, progress);
  if (!outcome && outcome.error().kind == ErrorKind::kHalfway) {
    return outcome;  // half a disk is not mounted
  }
  auto up = disk.bring_up();
  if (up) {
    return outcome;
  }
  return within(outcome ? "rolled back to checkpoint " +
                              std::to_string(outcome->checkpoint.id.number.value) + ", but"
                        : outcome.error().message(),
                up.error());
}

}  // namespace ckpt
