// SPDX-License-Identifier: Apache-2.0
// ckpt-tool: checkpoints, rollback and inspection of volumes that nbdkit-ckpt-plugin serves.
#include "tools/open_volume.h"
#include "tools/tool.h"

int main(int argc, char** argv) {
  return ckpt::run_tool({argv + 1, argv + argc}, ckpt::standard_streams(), ckpt::open_volume);
}
