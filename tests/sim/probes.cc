// SPDX-License-Identifier: Apache-2.0
#include "tests/sim/probes.h"

#include "common/mutex.h"

namespace ckpt::sim {
namespace {

Probes*& the_probes() {
  static Probes* probes = nullptr;
  return probes;
}

}  // namespace

void set_probes(Probes* probes) { the_probes() = probes; }

void count_probe(const char* name) {
  if (Probes* const probes = the_probes(); probes != nullptr) {
    probes->hit(name);
  }
}

}  // namespace ckpt::sim
