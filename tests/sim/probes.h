// SPDX-License-Identifier: Apache-2.0
// Counts of rare situations, over many seeds: one that never occurs is not tested. Some are seen by
// the simulator, others by the product (CKPT_PROBE).
#pragma once

#include <cstdint>
#include <map>
#include <string>

namespace ckpt::sim {

class Probes {
 public:
  void hit(const std::string& name, uint64_t count = 1) { counts_[name] += count; }
  [[nodiscard]] const std::map<std::string, uint64_t>& counts() const { return counts_; }

 private:
  std::map<std::string, uint64_t> counts_;
};

// Where CKPT_PROBE counts; null: nowhere. Outlives the run.
void set_probes(Probes* probes);

}  // namespace ckpt::sim
