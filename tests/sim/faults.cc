// SPDX-License-Identifier: Apache-2.0
#include "tests/sim/faults.h"

#include <algorithm>

namespace ckpt::sim {

int NthFault::fault(const DiskAccess& access) {
  if (access.operation != options_.operation || !access.path.ends_with(options_.path_end)) {
    return 0;
  }
  ++count_;
  return count_ == options_.n || (options_.for_good && hit()) ? options_.error : 0;
}

int RandomFaults::fault(const DiskAccess& access) {
  for (const Rate& rate : rates_) {
    if (access.operation != rate.operation || !access.path.starts_with(rate.path_begin)) {
      continue;
    }
    if (!random_.one_in(rate.one_in)) {
      return 0;
    }
    hits_.push_back({access.operation, std::string(access.path)});
    return rate.error;
  }
  return 0;
}

void RandomFaults::clear() {
  rates_.clear();
  hits_.clear();
}

uint64_t RandomFaults::count(DiskOperation operation) const {
  return static_cast<uint64_t>(std::count_if(
      hits_.begin(), hits_.end(), [&](const Hit& hit) { return hit.operation == operation; }));
}

uint64_t RandomFaults::failed_syncs(std::string_view path) const {
  return static_cast<uint64_t>(std::count_if(hits_.begin(), hits_.end(), [&](const Hit& hit) {
    return hit.operation == DiskOperation::kSync && hit.path == path;
  }));
}

}  // namespace ckpt::sim
