// SPDX-License-Identifier: Apache-2.0
#include "tools/attached_disk.h"

#include <fcntl.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
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

std::string block_folder(const AttachedDisk& disk) {
  return "/sys/block/" + disk.device.substr(disk.device.rfind('/') + 1);
}

// %41 is A.
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

// A file in a folder that nbdfuse serves could not be taken down alone.
Result<> check_served_alone(const std::string& file) {
  return find_mount(file) ? Result<>()
                          : Result<>(fail(ErrorKind::kInvalid,
                                          file + " is in a folder that nbdfuse serves: give it a "
                                                 "file instead (touch FILE; nbdfuse FILE URI)"));
}

}  // namespace

Result<> check_content(const std::string& device, const std::string& image, uint64_t offset_bytes) {
  for (int i = 0; i < kHeadTries; ++i) {
    const auto of_device = part_of(device, 0, O_DIRECT);
    if (!of_device) {
      return fail(ErrorKind::kUnreachable, of_device.error().message());
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
Result<> check_unused(const AttachedDisk& disk) {
  const UniqueFd fd(::open(disk.device.c_str(), O_RDONLY | O_EXCL | O_CLOEXEC));
  return fd || errno != EBUSY
             ? Result<>()
             : Result<>(fail(ErrorKind::kBusy,
                             disk.device + " is still in use: something else is mounted from it, "
                                           "or made of it (LVM, device mapper, swap): end that "
                                           "first"));
}

std::string usable_uri(const std::vector<std::string>& uris) {
  const auto usable =
      std::ranges::find_if(uris, [](const auto& uri) { return !client_words(uri).empty(); });
  return usable == uris.end() ? "" : *usable;
}

Result<bool> has_size(const AttachedDisk& disk) {
  const std::string size = first_line_of(block_folder(disk) + "/size");
  return size.empty() ? Result<bool>(fail(ErrorKind::kNotFound,
                                          disk.device + ": there is no such device: modprobe " +
                                              (disk.file.empty() ? "nbd" : "loop")))
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

Result<AttachedDisk> find_disk(const Mount& mount, uint64_t size_bytes, const std::string& image,
                               const std::vector<std::string>& uris) {
  const std::string name = OwnExport(size_bytes).find(mount.device);
  if (mount.root != "/") {
    return fail(ErrorKind::kInvalid, mount.point + " is a bind mount of " + mount.root + " on " +
                                         mount.source +
                                         ": give the mount of the whole file system");
  }
  const bool is_loop = name.starts_with("loop");
  if (!name.starts_with("nbd") && !is_loop) {
    return fail(
        ErrorKind::kInvalid,
        mount.point + " is on " + mount.source + ", which is " +
            (name.empty()
                 ? "no NBD device of this volume's size, nor a file of nbdfuse"
                 : name + " and neither an NBD device of the kernel nor a file of nbdfuse") +
            ": give a mount of the volume's disk");
  }
  AttachedDisk disk{"/dev/" + name.substr(0, name.find(' ')), 512, ""};
  if (is_loop) {
    disk.file = first_line_of(block_folder(disk) + "/loop/backing_file");
    CKPT_TRY(check_served_alone(disk.file));
  }
  if (auto same = check_content(mount.source, image, start_of(mount.device)); !same) {
    const bool is_other = same.error().kind == ErrorKind::kBusy;
    return is_other ? fail(ErrorKind::kInvalid, same.error().context) : Unexpected(same.error());
  }
  const std::string block = first_line_of(block_folder(disk) + "/queue/logical_block_size");
  disk.block_bytes = block.empty() ? 512 : std::strtoull(block.c_str(), nullptr, 10);
  disk.uri = usable_uri(uris);
  return disk;
}

Result<> check_server(const std::string& uri, const Uuid& volume) {
  const auto server = open_nbd_destination(uri);
  if (!server) {
    return fail(ErrorKind::kUnreachable,
                server.error().message() + ": nbd-client could not attach the disk to it again");
  }
  const std::string says = (*server)->description();
  return says == describe_export(volume)
             ? Result<>()
             : Result<>(fail(ErrorKind::kInvalid, uri + " serves \"" + printable(says) +
                                                      "\", and not volume " + volume.to_string()));
}

// The first that is attached to nothing.
Result<AttachedDisk> free_disk(const std::string& file) {
  bool has_client = false;
  for (size_t i = 0; first_line_of("/sys/block/nbd" + std::to_string(i) + "/size") != ""; ++i) {
    const AttachedDisk disk{"/dev/nbd" + std::to_string(i), 512, ""};
    has_client = true;
    if (first_line_of(block_folder(disk) + "/size") == "0" &&
        ::access((block_folder(disk) + "/pid").c_str(), F_OK) != 0) {
      return disk;
    }
  }
  if (has_client) {
    return fail(ErrorKind::kNotFound, "no NBD device is free: nbd-client -d what is not needed");
  }
  CKPT_ASSIGN(std::string device, free_loop_device());
  return AttachedDisk{std::move(device), 512, "", file};
}

Result<> detach(const AttachedDisk& disk) {
  if (!disk.file.empty()) {
    return detach_by_fuse(disk);
  }
  CKPT_TRY(run_client({"-d", disk.device}));
  return wait_for_size(disk, false);
}

Result<> attach(const AttachedDisk& disk) {
  std::vector<std::string> words = client_words(disk.uri);
  if (words.empty()) {
    return fail(ErrorKind::kInvalid, disk.device +
                                         " cannot be attached again: the server listens "
                                         "nowhere that nbd-client could connect to");
  }
  if (!disk.file.empty()) {
    return attach_by_fuse(disk);
  }
  words.insert(words.end(), {disk.device, "-block-size", std::to_string(disk.block_bytes)});
  CKPT_TRY(run_client(words));
  return wait_for_size(disk, true);
}

}  // namespace ckpt
