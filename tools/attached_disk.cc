// SPDX-License-Identifier: Apache-2.0
#include "tools/attached_disk.h"

#include <fcntl.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <filesystem>
#include <memory>
#include <thread>

#include "common/aligned_buffer.h"
#include "common/clock.h"
#include "common/fd.h"
#include "common/text.h"
#include "plugin/own_export.h"
#include "tools/destination.h"
#include "tools/fuse_disk.h"
#include "tools/program.h"
#include "tools/text_file.h"

namespace ckpt {
namespace {

constexpr const char* kClientPath = "/usr/sbin:/usr/bin:/sbin:/bin";
constexpr std::chrono::seconds kClientPatience{30};
constexpr std::chrono::seconds kDevicePatience{10};
constexpr std::chrono::milliseconds kDeviceLook{20};
// A file system says who it is in its first blocks.
constexpr size_t kHeadBytes = 65536;
// It may be written just now.
constexpr int kHeadTries = 5;
constexpr uint64_t kDeviceBlockBytes = 512;  // what any file system can be mounted from

std::string block_folder(const AttachedDisk& disk) {
  return "/sys/block/" + disk.device.substr(disk.device.rfind('/') + 1);
}

Result<> run_client(std::vector<std::string> words) {
  const std::string program = find_program("nbd-client", kClientPath);
  if (program.empty()) {
    return fail(ErrorKind::kNotFound, "nbd-client is not installed (package nbd-client)");
  }
  words.insert(words.begin(), program);
  auto said = output_of(words, kClientPatience);
  return said ? Result<>() : Result<>(within("nbd-client", said.error()));
}

// Waits until the kernel says that the device has a size, or none.
Result<> wait_for_size(const AttachedDisk& disk, bool has_size) {
  const SteadyTime deadline = system_clock().steady() + kDevicePatience;
  while ((first_line_of(block_folder(disk) + "/size") != "0") != has_size) {
    if (system_clock().steady() >= deadline) {
      return fail(ErrorKind::kTimeout, disk.device + (has_size ? " is not attached after 10 s"
                                                               : " is still attached after 10 s"));
    }
    std::this_thread::sleep_for(kDeviceLook);
  }
  return {};
}

// As it is on the device, past the page cache where it can be.
Result<std::string> part_of(const std::string& path, uint64_t offset_bytes, int flags) {
  const UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC | flags));
  const AlignedBuffer buffer(kHeadBytes);
  const ssize_t count =
      fd ? ::pread(fd.get(), buffer.data(), kHeadBytes, static_cast<off_t>(offset_bytes)) : -1;
  if (count < 0) {
    return fail_errno(errno, "read " + path);
  }
  return std::string(reinterpret_cast<const char*>(buffer.data()),  // NOLINT: bytes
                     static_cast<size_t>(count));
}

// Where a partition begins on its disk; 0: it is none.
uint64_t start_of(dev_t device) {
  const std::string sectors = first_line_of("/sys/dev/block/" + std::to_string(major(device)) +
                                            ":" + std::to_string(minor(device)) + "/start");
  constexpr uint64_t kSysfsSectorBytes = 512;
  return std::strtoull(sectors.c_str(), nullptr, 10) * kSysfsSectorBytes;
}

// The device, and what it is of, without anything that has to be asked for.
Result<AttachedDisk> device_of(const Mount& mount, uint64_t size_bytes) {
  const std::string name = OwnExport(size_bytes).find(mount.device);
  const std::string device = "/dev/" + name.substr(0, name.find(' '));
  const bool is_loop = name.starts_with("loop");
  if (name.empty()) {
    CKPT_TRY(check_fuse_answers(mount.source));
  }
  if (!is_loop && !name.starts_with("nbd")) {
    return fail(ErrorKind::kInvalid,
                mount.point + " is on " + mount.source +
                    ", which is no NBD device, and no loop device of what nbdfuse serves, of this "
                    "volume's size: give a mount of the volume's disk");
  }
  return AttachedDisk{device, kDeviceBlockBytes, "", is_loop ? file_below(device) : ""};
}

// That which nbdfuse has, if it says so: it is asked whether it is this volume's.
Result<std::string> uri_of_fuse(const AttachedDisk& disk, const VolumeStatus& status) {
  const auto server = find_fuse_server(disk.file);
  if (!server || server->uri.empty()) {
    return usable_uri(status.uris);
  }
  CKPT_TRY(check_server(server->uri, status.volume));
  return server->uri;
}

bool kernel_has_client() {
  const auto is_there = [] {
    std::error_code ignored;
    return std::filesystem::exists("/sys/module/nbd", ignored);
  };
  const std::string modprobe = find_program("modprobe", kClientPath);
  if (!is_there() && !modprobe.empty()) {
    (void)output_of({modprobe, "nbd"}, kClientPatience);
  }
  return is_there();
}

// The first that is attached to nothing.
Result<AttachedDisk> free_device(const std::string& uri) {
  std::error_code ignored;
  for (size_t i = 0;; ++i) {
    const AttachedDisk disk{"/dev/nbd" + std::to_string(i), kDeviceBlockBytes, uri};
    if (!std::filesystem::exists(block_folder(disk), ignored)) {
      break;
    }
    const auto in_use = has_size(disk);
    if (in_use && !*in_use && !std::filesystem::exists(block_folder(disk) + "/pid", ignored)) {
      return disk;
    }
  }
  return fail(ErrorKind::kNotFound,
              "no NBD device is free: nbd-client -d what is not needed, or load nbd.ko with more "
              "(nbds_max=)");
}

}  // namespace

std::string percent_decode(const std::string& text) {
  std::string plain;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '%' && i + 2 < text.size()) {
      plain += static_cast<char>(std::strtol(text.substr(i + 1, 2).c_str(), nullptr, 16));
      i += 2;
    } else {
      plain += text[i];
    }
  }
  return plain;
}

Result<> check_content(const std::string& device, const std::string& image, uint64_t offset_bytes) {
  for (int i = 0; i < kHeadTries; ++i) {
    const auto of_device = part_of(device, 0, O_DIRECT);
    if (!of_device) {
      return fail(ErrorKind::kUnreachable,
                  of_device.error().message() + ": if the server was started anew, unmount " +
                      device + ", detach it (nbd-client -d), and attach it again");
    }
    CKPT_ASSIGN(const std::string of_image, part_of(image, offset_bytes, 0));
    if (of_device->substr(0, of_image.size()) == of_image.substr(0, of_device->size())) {
      return {};
    }
    std::this_thread::sleep_for(kDeviceLook);
  }
  return fail(ErrorKind::kBusy,
              device + " is not of the disk of " + image + ": they have other content");
}

// open(2): with O_EXCL a block device that something is made of cannot be opened.
Result<> check_unused(const std::string& device) {
  const UniqueFd fd(::open(device.c_str(), O_RDONLY | O_EXCL | O_CLOEXEC));
  return fd || errno != EBUSY
             ? Result<>()
             : Result<>(fail(ErrorKind::kBusy,
                             device + " is still in use: something else is mounted from it, or "
                                      "made of it (LVM, device mapper, swap): end that first"));
}

std::string usable_uri(const std::vector<std::string>& uris) {
  const auto usable =
      std::ranges::find_if(uris, [](const auto& uri) { return !client_words(uri).empty(); });
  return usable == uris.end() ? "" : *usable;
}

Result<bool> has_size(const AttachedDisk& disk) {
  if (!disk.file.empty()) {
    return find_fuse_mount(disk.file) || !loops_upon(disk.file).empty();
  }
  const std::string size = first_line_of(block_folder(disk) + "/size");
  return size.empty() ? Result<bool>(fail(ErrorKind::kNotFound,
                                          disk.device + ": there is no such device: modprobe nbd"))
                      : Result<bool>(size != "0");
}

std::vector<std::string> client_words(const std::string& uri) {
  constexpr std::string_view kUnix = "nbd+unix:///?socket=";
  constexpr std::string_view kTcp = "nbd://";
  if (uri.starts_with(kUnix)) {
    return {"-unix", percent_decode(uri.substr(kUnix.size()))};
  }
  if (!uri.starts_with(kTcp)) {
    return {};
  }
  const std::string place = uri.substr(kTcp.size());
  const size_t colon = place.rfind(':');
  const bool has_port = colon != std::string::npos && place.find(']', colon) == std::string::npos;
  std::string host = has_port ? place.substr(0, colon) : place;
  if (host.starts_with('[') && host.ends_with(']')) {
    host = host.substr(1, host.size() - 2);
  }
  return {host, has_port ? place.substr(colon + 1) : "10809"};
}

Result<AttachedDisk> find_disk(const Mount& mount, const VolumeStatus& status) {
  if (mount.root != "/") {
    return fail(ErrorKind::kInvalid, mount.point + " is a bind mount of " + mount.root + " on " +
                                         mount.source +
                                         ": give the mount of the whole file system");
  }
  CKPT_ASSIGN(AttachedDisk disk, device_of(mount, status.size_bytes));
  if (auto same = check_content(mount.source, status.image, start_of(mount.device)); !same) {
    const bool is_other = same.error().kind == ErrorKind::kBusy;
    return is_other ? fail(ErrorKind::kInvalid, same.error().context) : Unexpected(same.error());
  }
  const std::string block = first_line_of(block_folder(disk) + "/queue/logical_block_size");
  disk.block_bytes = block.empty() ? 512 : std::strtoull(block.c_str(), nullptr, 10);
  disk.uri = usable_uri(status.uris);
  if (!disk.file.empty()) {
    CKPT_TRY(check_fuse_disk(disk.device));
    CKPT_ASSIGN(disk.uri, uri_of_fuse(disk, status));
  }
  return disk;
}

Result<AttachedDisk> free_disk(const VolumeStatus& status) {
  const bool has_client = !find_program("nbd-client", kClientPath).empty();
  if (has_client && kernel_has_client()) {
    return free_device(usable_uri(status.uris));
  }
  if (const auto programs = find_fuse_programs(); !programs) {
    return fail(ErrorKind::kNotFound,
                (has_client ? "the kernel has no NBD client (modprobe nbd)"
                            : "nbd-client is not installed (package nbd-client)") +
                    std::string("; in its place nbdfuse with a loop device would do, but ") +
                    programs.error().message());
  }
  return AttachedDisk{"", kDeviceBlockBytes, usable_uri(status.uris), fuse_file_of(status.volume)};
}

Result<> check_server(const std::string& uri, const Uuid& volume) {
  const auto server = open_nbd_destination(uri);
  if (!server) {
    return fail(ErrorKind::kUnreachable,
                server.error().message() + ": the disk could not be attached to it again");
  }
  const std::string says = (*server)->description();
  return says == describe_export(volume)
             ? Result<>()
             : Result<>(fail(ErrorKind::kInvalid, uri + " serves \"" + printable(says) +
                                                      "\", and not volume " + volume.to_string()));
}

Result<> detach(const AttachedDisk& disk) {
  if (!disk.file.empty()) {
    return detach_fuse(disk);
  }
  CKPT_TRY(check_unused(disk.device));
  CKPT_TRY(run_client({"-d", disk.device}));
  return wait_for_size(disk, false);
}

bool can_read(const AttachedDisk& disk) { return part_of(disk.device, 0, O_DIRECT).has_value(); }

Result<> disconnect(const AttachedDisk& disk) { return run_client({"-d", disk.device}); }

Result<> attach(AttachedDisk& disk) {
  std::vector<std::string> words = client_words(disk.uri);
  if (disk.uri.empty() || (disk.file.empty() && words.empty())) {
    return fail(ErrorKind::kInvalid,
                "the disk cannot be attached: its server listens nowhere that nbd-client or "
                "nbdfuse could connect to without TLS");
  }
  if (!disk.file.empty()) {
    return attach_fuse(disk);
  }
  words.insert(words.end(), {disk.device, "-block-size", std::to_string(disk.block_bytes)});
  CKPT_TRY(run_client(words));
  return wait_for_size(disk, true);
}

}  // namespace ckpt
