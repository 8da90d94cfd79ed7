// SPDX-License-Identifier: Apache-2.0
#include "tests/sim/faults.h"

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
    if (access.operation == rate.operation && access.path.ends_with(rate.path_end) &&
        random_.one_in(rate.one_in)) {
      ++count_;
      return rate.error;
    }
  }
  return 0;
}

}  // namespace ckpt::sim
