// SPDX-License-Identifier: Apache-2.0
#include "plugin/io_engine.h"

#include <fcntl.h>
#include <liburing.h>
#include <sys/uio.h>

#include <array>
#include <cerrno>
#include <cstring>

namespace ckpt {
namespace {

// A ring of its own, gone when it returns: rings for use are made after the fork, a thread each.
int probe_uring() {
  io_uring ring{};
  const int status = io_uring_queue_init(1, &ring, 0);
  if (status == 0) {
    io_uring_queue_exit(&ring);
  }
  return -status;
}

// Whether a buffered write can complete without blocking (pwritev2(2), RWF_NOWAIT). On ext4 it
// cannot: io_uring would hand every write to a helper thread.
bool writes_do_not_block(const std::string& directory) {
  const UniqueFd fd(open(directory.c_str(), O_TMPFILE | O_RDWR | O_CLOEXEC, 0600));
  std::array<char, kBlockBytes> page{};
  const iovec vector{page.data(), page.size()};
  return fd && pwrite(fd.get(), page.data(), page.size(), 0) == ssize_t{kBlockBytes} &&
         pwritev2(fd.get(), &vector, 1, 0, RWF_NOWAIT) == ssize_t{kBlockBytes};
}

}  // namespace

Result<IoChoice> choose_io(IoMode mode, const IoTarget& target) {
  if (mode == IoMode::kSync) {
    return IoChoice{{}, "sync (io=sync)"};
  }
  const int number = probe_uring();
  if (number != 0 && mode == IoMode::kUring) {
    return fail(ErrorKind::kInvalid,
                "io=uring: this kernel or its limits do not allow io_uring; use io=auto", number);
  }
  if (number != 0) {
    return IoChoice{{}, std::string("sync (no io_uring here: ") + errno_text(number) + ")"};
  }
  if (mode == IoMode::kUring) {
    return IoChoice{{true, true, true}, "uring (io=uring)"};
  }
  if (target.direct) {
    return IoChoice{{true, true, true}, "uring (direct I/O)"};
  }
  if (target.directory.empty()) {
    return IoChoice{{true, false, false},
                    "sync writes, uring reads (buffered writes to a block device may go through "
                    "io_uring's helper threads)"};
  }
  if (writes_do_not_block(target.directory)) {
    return IoChoice{
        {true, true, false},
        "sync single writes, uring reads and batches (a ring costs a single buffered write "
        "more than it saves)"};
  }
  return IoChoice{{true, false, false},
                  "sync writes, uring reads (buffered writes on this file system would go through "
                  "io_uring's helper threads)"};
}

}  // namespace ckpt
