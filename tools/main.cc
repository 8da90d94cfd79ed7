// SPDX-License-Identifier: Apache-2.0
// ckpt-tool: checkpoints, rollback and inspection of volumes that nbdkit-ckpt-plugin serves.
#include <fcntl.h>
#include <unistd.h>

#include "tools/open_volume.h"
#include "tools/tool.h"

namespace {

// What was started without a standard descriptor would get the next file that is opened as one, and
// write its output into it.
void fill_descriptors() {
  for (int fd = 0; fd <= STDERR_FILENO; ++fd) {
    if (::fcntl(fd, F_GETFD) < 0) {
      (void)::open("/dev/null", O_RDWR);  // the lowest that is free
    }
  }
}

}  // namespace

int main(int argc, char** argv) {
  fill_descriptors();
  return ckpt::run_tool({argv + 1, argv + argc}, ckpt::standard_streams(), ckpt::open_volume);
}
