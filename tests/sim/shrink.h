// SPDX-License-Identifier: Apache-2.0
// A simpler plan that fails, too: with less of everything that does not matter.
#pragma once

#include <functional>

#include "tests/sim/plan.h"

namespace ckpt::sim {

// fails: whether a plan does. The one that is given does.
Plan shrink(Plan plan, const std::function<bool(const Plan&)>& fails);

}  // namespace ckpt::sim
