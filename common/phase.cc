// SPDX-License-Identifier: Apache-2.0
#include "common/phase.h"

#include <fcntl.h>
#include <sys/mman.h>

#include <algorithm>
#include <cstdlib>

#include "common/fd.h"

namespace ckpt {
namespace {

constexpr size_t kPhasePageBytes = 4096;

}  // namespace

void open_phase_file() {
  const char* const path = std::getenv("CKPT_PHASE_FILE");
  if (path == nullptr) {
    return;
  }
  const UniqueFd fd(open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600));
  if (!fd || ftruncate(fd.get(), kPhasePageBytes) != 0) {
    return;
  }
  void* const page =
      mmap(nullptr, kPhasePageBytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd.get(), 0);
  if (page == MAP_FAILED) {
    return;
  }
  phase_counters = static_cast<std::atomic<uint32_t>*>(page);
  std::fill_n(phase_counters, kPhaseCount, 0);  // those of the one that died before
}

}  // namespace ckpt
