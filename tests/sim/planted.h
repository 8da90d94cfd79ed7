// SPDX-License-Identifier: Apache-2.0
// Which bug is planted in this run (CKPT_PLANTED in the product's sources). At most one is.
#pragma once

#include <string>

namespace ckpt::sim {

// Plants the bug of that name; empty: none.
void plant(const std::string& name);

// Whether the product has asked for the planted bug since: a name that nobody asks for is a mistake, and
// the test that it is found would prove nothing.
bool planted_was_reached();

// What CKPT_PLANTED(name) asks.
bool planted(const char* name);

}  // namespace ckpt::sim
