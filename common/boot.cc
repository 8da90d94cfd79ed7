// SPDX-License-Identifier: Apache-2.0
#include "common/boot.h"

#include <ctime>
#include <fstream>

namespace ckpt {

std::string this_boot_id() {
  std::ifstream file("/proc/sys/kernel/random/boot_id");
  std::string id;
  std::getline(file, id);
  return id;
}

WallTime this_boot_time() {
  timespec since{};
  clock_gettime(CLOCK_BOOTTIME, &since);
  return system_clock().wall() - std::chrono::seconds(since.tv_sec) -
         std::chrono::nanoseconds(since.tv_nsec);
}

}  // namespace ckpt
