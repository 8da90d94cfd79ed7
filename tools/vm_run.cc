// SPDX-License-Identifier: Apache-2.0
#include "tools/vm_run.h"

#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "tools/attached_disk.h"
#include "tools/program.h"

namespace ckpt {
namespace {

constexpr const char* kMonitor = "vm.qmp";
constexpr const char* kQemu = "qemu-system-x86_64";
constexpr const char* kKvm = "/dev/kvm";
constexpr size_t kSocketPathMax = sizeof(sockaddr_un::sun_path) - 1;

// Within QEMU's options a comma is two.
std::string escaped(const std::string& text) {
  std::string twice;
  for (const char letter : text) {
    twice += letter == ',' ? ",," : std::string(1, letter);
  }
  return twice;
}

bool has(const std::vector<std::string>& words, const std::string& option) {
  return std::ranges::any_of(
      words, [&option](const std::string& word) { return word == option || word == "-" + option; });
}

Result<std::string> disk_of(const VolumeStatus& volume, const std::string& node) {
  const std::vector<std::string> place = client_words(usable_uri(volume.uris));
  if (place.size() != 2) {
    return fail(ErrorKind::kInvalid, volume.image +
                                         ": its server listens nowhere that QEMU could connect to "
                                         "without TLS: give QEMU the disk yourself (docs/vm.md)");
  }
  const std::string server =
      place[0] == "-unix"
          ? "server.type=unix,server.path=" + escaped(place[1])
          : "server.type=inet,server.host=" + escaped(place[0]) + ",server.port=" + place[1];
  return "driver=nbd,node-name=" + node + "," + server + ",reconnect-delay=30,discard=unmap";
}

}  // namespace

std::string monitor_of(const VolumePaths& paths) { return paths.state + "/" + kMonitor; }

Result<std::vector<std::string>> words_of_machine(const std::vector<std::string>& words,
                                                  const std::vector<VolumeStatus>& volumes,
                                                  const std::string& monitor) {
  if (monitor.size() > kSocketPathMax) {
    return fail(ErrorKind::kInvalid,
                monitor + ": too long for a socket: give --qmp, here and to the other commands");
  }
  std::vector<std::string> all = words;
  if (all.empty() || all.front().starts_with('-')) {
    all.insert(all.begin(), kQemu);
  }
  const auto add_unless_there = [&all](const std::string& option, const std::string& value) {
    if (!has(all, option)) {
      all.insert(all.end(), {option, value});
    }
  };
  add_unless_there("-machine", "q35");
  add_unless_there("-accel", ::access(kKvm, R_OK | W_OK) == 0 ? "kvm" : "tcg");
  add_unless_there("-cpu", "max");
  add_unless_there("-m", "1G");
  for (size_t i = 0; i < volumes.size(); ++i) {
    const std::string node = "ckpt" + std::to_string(i);
    CKPT_ASSIGN(const std::string disk, disk_of(volumes[i], node));
    all.insert(all.end(), {"-blockdev", disk, "-device",
                           "virtio-blk-pci,drive=" + node +
                               ",discard=on,write-zeroes=on,bootindex=" + std::to_string(i + 1)});
  }
  all.insert(all.end(), {"-qmp", "unix:" + escaped(monitor) + ",server=on,wait=off"});
  return all;
}

Result<> become(const std::vector<std::string>& words) {
  const std::vector<char*> arguments = as_arguments(words);
  ::execvp(arguments[0], arguments.data());
  return fail_errno(errno, "run " + words.front());
}

}  // namespace ckpt
