// SPDX-License-Identifier: Apache-2.0
#include "tests/sim/shrink.h"

#include <array>

namespace ckpt::sim {
namespace {

using Change = void (*)(Plan&);

// The boldest first. One that changes nothing is not tried.
constexpr std::array kChanges{
    Change{[](Plan& plan) { plan.server.remote = false; }},
    Change{[](Plan& plan) { plan.lives = plan.lives / 2; }},
    Change{[](Plan& plan) { plan.writers = (plan.writers + 1) / 2; }},
    Change{[](Plan& plan) { plan.requests = (plan.requests + 1) / 2; }},
    Change{[](Plan& plan) { plan.controls = (plan.controls + 1) / 2; }},
    Change{[](Plan& plan) { plan.exports = 0; }},
    Change{[](Plan& plan) { plan.attachments = false; }},
    Change{[](Plan& plan) { plan.scheduler.clock_is_set_back = false; }},
    Change{[](Plan& plan) { plan.long_pauses = false; }},
    Change{[](Plan& plan) { plan.short_timeouts = false; }},
    Change{[](Plan& plan) { plan.crowded = false; }},
    Change{[](Plan& plan) { plan.own_connections = false; }},
    Change{[](Plan& plan) { plan.rollback_one_in = 0; }},
    Change{[](Plan& plan) { plan.tampering = false; }},
    Change{[](Plan& plan) { plan.corruption = false; }},
    Change{[](Plan& plan) { plan.old_copies = false; }},
    Change{[](Plan& plan) { plan.kills = plan.kills && !plan.power_losses; }},
    Change{[](Plan& plan) { plan.power_losses = plan.power_losses && !plan.kills; }},
    Change{[](Plan& plan) { plan.image_write_error_one_in = 0; }},
    Change{[](Plan& plan) { plan.image_read_error_one_in = 0; }},
    Change{[](Plan& plan) { plan.image_sync_error_one_in = 0; }},
    Change{[](Plan& plan) { plan.state_error_one_in = 0; }},
    Change{[](Plan& plan) { plan.store_error_one_in = 0; }},
    Change{[](Plan& plan) { plan.memory_full_one_in = 0; }},
    Change{[](Plan& plan) { plan.no_space = false; }},
    Change{[](Plan& plan) { plan.server.link_lost_one_in = 0; }},
    Change{[](Plan& plan) { plan.link_break_one_in = 0; }},
    Change{[](Plan& plan) { plan.backup_kills = false; }},
    Change{[](Plan& plan) { plan.backup_power_losses = false; }},
    Change{[](Plan& plan) { plan.backup_no_space = false; }},
};

}  // namespace

Plan shrink(Plan plan, const std::function<bool(const Plan&)>& fails) {
  for (bool has_changed = true; has_changed;) {
    has_changed = false;
    for (const Change change : kChanges) {
      Plan simpler = plan;
      change(simpler);
      const bool is_simpler = describe(simpler) != describe(plan);
      if (is_simpler && fails(simpler)) {
        plan = simpler;
        has_changed = true;
      }
    }
  }
  return plan;
}

}  // namespace ckpt::sim
