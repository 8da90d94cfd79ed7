// SPDX-License-Identifier: Apache-2.0
#include "tools/volume_facts.h"

#include <fcntl.h>
#include <linux/magic.h>
#include <sys/stat.h>
#include <sys/statfs.h>

#include <array>
#include <cerrno>
#include <cstdio>
#include <filesystem>

#include "common/direct_file.h"
#include "plugin/backup_place.h"
#include "plugin/config.h"
#include "plugin/local_volume.h"
#include "plugin/own_export.h"
#include "plugin/written_maps.h"
#include "tools/format.h"

namespace ckpt {
namespace {

namespace fs = std::filesystem;

constexpr uint64_t kStatBlockBytes = 512;
constexpr uint64_t kHeadBytes = 64;
constexpr std::string_view kEmbedded = "embedded:";

// statfs(2). ext2 and ext3 have the number of ext4.
std::string file_system_name(const struct statfs& status) {
  constexpr uint32_t kZfs = 0x2fc12fc1;  // in no header of the kernel's
  constexpr uint32_t kCifs = 0xff534d42;
  struct Magic {
    uint32_t number;
    const char* name;
  };
  constexpr std::array<Magic, 12> kMagics{{{EXT4_SUPER_MAGIC, "ext4"},
                                           {XFS_SUPER_MAGIC, "xfs"},
                                           {BTRFS_SUPER_MAGIC, "btrfs"},
                                           {F2FS_SUPER_MAGIC, "f2fs"},
                                           {TMPFS_MAGIC, "tmpfs"},
                                           {RAMFS_MAGIC, "ramfs"},
                                           {OVERLAYFS_SUPER_MAGIC, "overlayfs"},
                                           {NFS_SUPER_MAGIC, "nfs"},
                                           {FUSE_SUPER_MAGIC, "fuse"},
                                           {MSDOS_SUPER_MAGIC, "vfat"},
                                           {kCifs, "cifs"},
                                           {kZfs, "zfs"}}};
  const auto number = static_cast<uint32_t>(status.f_type);
  for (const Magic& magic : kMagics) {
    if (magic.number == number) {
      return magic.name;
    }
  }
  std::array<char, 32> text{};
  (void)std::snprintf(text.data(), text.size(), "file system 0x%x", number);
  return text.data();
}

// On a nameless file, so that nothing of anybody's changes, not even a directory's times.
Result<> try_hole(const std::string& directory) {
  const UniqueFd fd(open(directory.c_str(), O_TMPFILE | O_RDWR | O_CLOEXEC, 0600));
  if (!fd || ftruncate(fd.get(), off_t{kBlockBytes}) != 0) {
    return fail_errno(errno, "make a temporary file in " + directory);
  }
  if (fallocate(fd.get(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, off_t{kBlockBytes}) == 0) {
    return {};
  }
  return errno == EOPNOTSUPP ? fail(ErrorKind::kInvalid, "its files cannot have holes made")
                             : fail_errno(errno, "make a hole in a file in " + directory);
}

// The path, or the nearest above it that is a directory.
std::string nearest_directory(const std::string& path) {
  std::error_code ignored;
  fs::path there = fs::path(path).lexically_normal();
  while (!fs::is_directory(there, ignored) && there.has_relative_path()) {
    there = there.parent_path();
  }
  return there.empty() ? "." : there.string();
}

// Opening for writing would do nothing either, but a device's closing is an event for udev(7).
Result<> try_access(const std::string& path) {
  return faccessat(AT_FDCWD, path.c_str(), R_OK | W_OK, AT_EACCESS) == 0
             ? Result<>()
             : Result<>(fail_errno(errno, "open " + path + " for reading and writing"));
}

void look_into(ImageFacts& image, const std::string& path) {
  const auto file = PosixFile::open(path, O_RDONLY, RingUse{});
  const auto size_bytes = file ? (*file)->size() : Result<uint64_t>(0);
  if (!size_bytes || *size_bytes == 0) {
    return;
  }
  image.size_bytes = *size_bytes;
  std::array<std::byte, kHeadBytes> head{};
  const auto begin = ByteSpan(head).first(std::min(kHeadBytes, image.size_bytes));
  if ((*file)->read(0, begin)) {
    image.format = foreign_format(begin);
  }
  const auto direct = DirectFile::open(path, O_RDONLY, RingUse{});
  image.direct = direct ? Result<>() : Result<>(Unexpected(direct.error()));
}

Result<ImageFacts> look_at_image(const VolumePaths& paths) {
  struct stat status {};
  if (stat(paths.image.c_str(), &status) != 0) {
    const int number = errno;
    return number == ENOENT
               ? fail(ErrorKind::kNotFound,
                      paths.image + ": the image is gone, but not its state in " + paths.state +
                          ": `ckpt-tool rollback --rebuild` makes it anew from the "
                          "back-up")
               : fail_errno(number, paths.image);
  }
  ImageFacts image;
  image.is_device = S_ISBLK(status.st_mode);
  image.is_file = S_ISREG(status.st_mode);
  image.access = try_access(paths.image);
  if (image.is_device || image.is_file) {
    look_into(image, paths.image);
  }
  if (image.is_device) {
    image.own = OwnExport(image.size_bytes).find(status.st_rdev);
  } else {
    image.place = look_at_place(fs::path(paths.image).parent_path());
  }
  image.allocated_bytes = image.is_device
                              ? image.size_bytes
                              : static_cast<uint64_t>(status.st_blocks) * kStatBlockBytes;
  return image;
}

// What the volume says of itself. Nothing without a state directory.
void ask_volume(VolumeFacts& facts, const VolumeName& name, const VolumeOpener& opener) {
  std::error_code ignored;
  facts.has_state = fs::exists(facts.paths.state + "/volume", ignored);
  if (!facts.has_state) {
    return;
  }
  auto opened = opener(name);
  if (!opened) {
    facts.status = Result<VolumeStatus>(Unexpected(opened.error()));
    return;
  }
  facts.served = opened->served;
  facts.status = Result<VolumeStatus>(opened->volume->status());
  if (facts.paths.image.empty()) {
    facts.paths.image = (*facts.status)->image;
  }
}

// Where the back-up is, by what the volume says; of one that says nothing, where it would be.
Result<> find_backup(VolumeFacts& facts, const std::string& wanted, std::string& folder) {
  const bool says = facts.status && *facts.status && (*facts.status)->store;
  const std::string address = says ? (*facts.status)->store->address : "";
  if (address.starts_with(kEmbedded)) {
    folder = address.substr(kEmbedded.size());
    return {};
  }
  CKPT_ASSIGN(const std::string place, parse_backup_option(wanted));
  facts.remote_backup = says ? address : is_remote_place(place) ? place : "";
  folder = folder_of_place(is_remote_place(place) ? "" : place, facts.paths.state);
  return {};
}

void look_at_places(VolumeFacts& facts, const std::string& store_path) {
  facts.state = look_at_place(facts.paths.state);
  const uint64_t size_bytes = facts.image.size_bytes;
  const OwnExport own(size_bytes);
  if (size_bytes > 0) {
    facts.state_export = own.refuse(facts.paths.state);
    facts.maps_bytes = WrittenMaps::total_bytes(Geometry::of_disk(size_bytes));
  }
  if (!facts.remote_backup.empty()) {
    return;
  }
  facts.backup = look_at_place(store_path);
  std::error_code ignored;
  facts.has_backup = fs::exists(store_path + "/volume", ignored);
  facts.room = room_for_backup(store_path, size_bytes, facts.backup.free_bytes);
  if (size_bytes > 0) {
    facts.backup_export = own.refuse(store_path);
  }
}

}  // namespace

Place look_at_place(const std::string& path) {
  Place place;
  place.path = path;
  const std::string there = nearest_directory(path);
  std::error_code ignored;
  place.exists = fs::is_directory(path, ignored);
  place.is_writable = faccessat(AT_FDCWD, there.c_str(), W_OK | X_OK, AT_EACCESS) == 0;
  struct statfs system {};
  struct stat status {};
  if (statfs(there.c_str(), &system) == 0 && stat(there.c_str(), &status) == 0) {
    place.file_system = file_system_name(system);
    place.device = status.st_dev;
    place.free_bytes =
        static_cast<uint64_t>(system.f_bavail) * static_cast<uint64_t>(system.f_frsize);
  }
  place.holes = try_hole(there);
  return place;
}

Result<VolumeFacts> look_at_volume(const VolumeName& name, const VolumeOpener& opener) {
  VolumeFacts facts;
  CKPT_ASSIGN(facts.paths, find_candidate(name));
  CKPT_TRY(require_primary(facts.paths));
  ask_volume(facts, name, opener);
  if (facts.paths.image.empty()) {
    return fail(ErrorKind::kInvalid,
                facts.paths.state +
                    ": this does not say where the image is, and no server that "
                    "runs does: give the image, and --state " +
                    facts.paths.state);
  }
  CKPT_ASSIGN(facts.image, look_at_image(facts.paths));
  std::string store_path;
  CKPT_TRY(find_backup(facts, name.backup, store_path));
  look_at_places(facts, store_path);
  std::error_code ignored;
  facts.has_proc = fs::is_directory("/proc/self/fd", ignored);
  return facts;
}

}  // namespace ckpt
