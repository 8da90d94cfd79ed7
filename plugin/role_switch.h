// SPDX-License-Identifier: Apache-2.0
// A planned change of roles: the back-up becomes the primary, the primary its back-up, and nothing
// is lost.
#pragma once

#include "plugin/rejoin.h"

namespace ckpt {

struct SwitchOptions {
  // Of the primary, which nobody serves; what concerns `discard` and `force` does not count.
  RejoinOptions rejoin;
  std::chrono::milliseconds timeout{60000};  // of the last checkpoint
  // Before anything is changed; its failure is switch_roles()'s. backup: where the new primary is.
  std::function<Result<>(const std::string& backup)> on_ready;
};

struct SwitchOutcome {
  Uuid volume;
  CheckpointInfo checkpoint;  // that both are; its timeline is the new one
  std::string backup;         // where the new primary is
  std::string store_path;     // the folder of the new back-up
};

// Takes a last checkpoint, has the back-up become the primary at it, and has the image rejoin: from
// then on it is the back-up of what is to be served there.
//
// Durability: all of it, when it returns.
// Failure:    kHalfway: the back-up is the primary, or may be, and rejoin() goes on. Otherwise the
//             roles are as before: kBusy: a server has the volume; kInvalid: its back-up is no
//             other machine's, or the image could not rejoin; kFenced: it has been promoted before;
//             kUnreachable: it is not there; kTimeout.
Result<SwitchOutcome> switch_roles(const SwitchOptions& options);

}  // namespace ckpt
