// SPDX-License-Identifier: Apache-2.0
// nbdkit-ckpt-plugin(1), backupd(8), proc_pid_mountinfo(5)
#include "common/text.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "backupd/config_file.h"
#include "common/address.h"
#include "plugin/config.h"
#include "tests/fuzz/target.h"
#include "tools/fuse_disk.h"
#include "tools/mount.h"

namespace ckpt::fuzz {
namespace {

std::vector<std::string> lines_of(ConstByteSpan input) {
  std::vector<std::string> lines(1);
  for (const char byte : text_of(input)) {
    if (byte == '\n') {
      lines.emplace_back();
    } else {
      lines.back().push_back(byte);
    }
  }
  return lines;
}

// A parameter a line, as nbdkit gives them. None looks at a file before the server starts.
void run_parameters(ConstByteSpan input) {
  LocalOptions options;
  for (const std::string& line : lines_of(input)) {
    const size_t at = line.find('=');
    if (at != std::string::npos) {
      (void)set_parameter(options, line.substr(0, at), line.substr(at + 1));
    }
  }
  (void)check_parameters(options);
}

// backupd's configuration, in a file without a place on a disk.
void run_configuration(ConstByteSpan input) {
  static const int fd = memfd_create("configuration", MFD_CLOEXEC);
  CKPT_CHECK(ftruncate(fd, 0) == 0);
  CKPT_CHECK(pwrite(fd, input.data(), input.size(), 0) == static_cast<ssize_t>(input.size()));
  DaemonOptions options;
  (void)read_config_file("/proc/self/fd/" + std::to_string(fd), options);
}

// What is an address is one again when it is written.
void run_address(ConstByteSpan input) {
  expect_same_meaning(text_of(input), parse_address,
                      [](const Address& address) { return address.to_string(); });
}

void run_mounts(ConstByteSpan input) { (void)parse_mounts(text_of(input)); }

// Nothing of it can do anything to a terminal, nor end a line.
void run_printable(ConstByteSpan input) {
  const std::string text = printable(text_of(input));
  CKPT_CHECK(is_utf8(text) && !has_control_character(text));
}

}  // namespace

std::vector<Target> text_targets() {
  return {{"parameters", run_parameters},
          {"configuration", run_configuration},
          {"address", run_address},
          {"mounts", run_mounts},
          {"printable", run_printable}};
}

}  // namespace ckpt::fuzz
