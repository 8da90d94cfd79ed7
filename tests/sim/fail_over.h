// SPDX-License-Identifier: Apache-2.0
// A fail-over, as plugin/promote.cc and plugin/rejoin.cc do it, without the files of a real
// machine.
#pragma once

#include "plugin/role_change.h"
#include "tests/sim/server.h"

namespace ckpt::sim {

// Where the old primary's store is put together.
inline constexpr char kDraftName[] = "draft";

// Promotes the store in that folder of the back-up's machine, which nobody has open: its record
// then.
Result<StoreRecord> promote_store(Machine& machine, const std::string& folder, const Uuid& volume,
                                  const ServerOptions& options);
// The primary gives its role up, as plugin/role_switch.cc does it, or finds that it has: a last
// checkpoint, of that name, and the back-up is told. on_made: what became of that checkpoint.
Result<> give_up_role(Machine& machine, const ServerOptions& options, const std::string& name,
                      const std::function<void(const Result<CheckpointOutcome>&)>& on_made);
// Whether the old primary has it on record that its back-up was promoted.
Result<bool> is_superseded(Machine& machine);
// What the old primary knows becomes a store's folder, kDraftName, on its own disk, without an
// image.
Result<> draft_store(Machine& machine, const ServerOptions& options);
// Makes the state of an image that is the checkpoint of that record.
Result<> make_state(Machine& machine, const StoreRecord& promoted, const ServerOptions& options);

}  // namespace ckpt::sim
