/* SPDX-License-Identifier: Apache-2.0
   Loaded into programs that are to find what a guest left on its disks as they would after the next
   boot of that guest: the disk has the number that it had there (here it is a loop device), and the
   machine was started a moment ago. CKPT_GUEST_DEVICE is MAJOR:MINOR. */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum { kLoopMajor = 7 }; /* Linux, Documentation/admin-guide/devices.txt */

int statx(int folder, const char* path, int flags, unsigned int mask, struct statx* status) {
  const long result = syscall(SYS_statx, folder, path, flags, mask, status);
  const char* device = getenv("CKPT_GUEST_DEVICE");
  unsigned int major;
  unsigned int minor;
  if (result == 0 && status->stx_dev_major == kLoopMajor && device != NULL &&
      sscanf(device, "%u:%u", &major, &minor) == 2) {
    status->stx_dev_major = major;
    status->stx_dev_minor = minor;
  }
  return (int)result;
}

int clock_gettime(clockid_t clock, struct timespec* time) {
  if (clock == CLOCK_BOOTTIME) {
    time->tv_sec = 1;
    time->tv_nsec = 0;
    return 0;
  }
  return (int)syscall(SYS_clock_gettime, clock, time);
}
