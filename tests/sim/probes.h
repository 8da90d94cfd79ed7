// SPDX-License-Identifier: Apache-2.0
// Counts of rare situations, over many seeds: one that never occurs is not tested.
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

}  // namespace ckpt::sim
