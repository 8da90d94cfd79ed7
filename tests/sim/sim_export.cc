// SPDX-License-Identifier: Apache-2.0
#include "tests/sim/sim_export.h"

#include <algorithm>

#include "tests/sim/content.h"

namespace ckpt::sim {

using std::chrono::milliseconds;

SimExport::SimExport(Scheduler& scheduler, SeededRandom random, uint64_t size_bytes)
    : scheduler_(scheduler),
      random_(random),
      slow_(random_.one_in(4)),
      content_(size_bytes),
      taken_(size_bytes / kSector) {}

Result<> SimExport::begin(const CheckpointInfo& checkpoint, uint64_t size_bytes) {
  if (begun_ || size_bytes != content_.size()) {
    wrong_ = "it begins twice, or is not of the disk's size";
  }
  begun_ = true;
  checkpoint_ = checkpoint;
  return {};
}

bool SimExport::take(ByteRange range) {
  const bool fits = begun_ && range.offset % kSector == 0 && range.length % kSector == 0 &&
                    range.end() <= content_.size();
  for (uint64_t at = range.offset; fits && at < range.end(); at += kSector) {
    if (taken_[at / kSector]) {
      wrong_ = "sector " + std::to_string(at / kSector) + " comes twice";
    }
    taken_[at / kSector] = true;
  }
  if (!fits) {
    wrong_ = "what comes at " + std::to_string(range.offset) + " is not of the disk";
  }
  return fits;
}

// Whoever exports, the applier or a checkpoint waits meanwhile.
void SimExport::take_time() {
  if (slow_ && random_.one_in(4)) {
    scheduler_.sleep(milliseconds(random_.below(3000)));
  } else if (random_.one_in(3)) {
    scheduler_.sleep(milliseconds(random_.below(4)));
  }
}

Result<> SimExport::write(uint64_t offset, ConstByteSpan data) {
  take_time();
  if (take({offset, data.size()})) {
    std::ranges::copy(data, content_.begin() + static_cast<ptrdiff_t>(offset));
  }
  return {};
}

Result<> SimExport::zero(ByteRange range) {
  take_time();
  (void)take(range);
  return {};
}

std::string SimExport::check_whole() const {
  if (!wrong_.empty()) {
    return "an export: " + wrong_;
  }
  const auto missing = std::ranges::find(taken_, false);
  return missing == taken_.end()
             ? ""
             : "an export lacks sector " + std::to_string(missing - taken_.begin());
}

}  // namespace ckpt::sim
