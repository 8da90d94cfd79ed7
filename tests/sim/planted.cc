// SPDX-License-Identifier: Apache-2.0
#include "tests/sim/planted.h"

namespace ckpt::sim {
namespace {

struct Plant {
  std::string name;
  bool reached = false;
};

Plant& the_plant() {
  static Plant plant;
  return plant;
}

}  // namespace

void plant(const std::string& name) { the_plant() = Plant{name, false}; }

bool planted_was_reached() { return the_plant().reached; }

bool planted(const char* name) {
  Plant& plant = the_plant();
  if (plant.name != name) {
    return false;
  }
  plant.reached = true;
  return true;
}

}  // namespace ckpt::sim
