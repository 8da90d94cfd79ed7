// SPDX-License-Identifier: Apache-2.0
// The way back after a fail-over: the image of the old primary becomes the new one's back-up.
#pragma once

#include <functional>
#include <string>

#include "common/result.h"
#include "common/store_link.h"
#include "common/tls_options.h"

namespace ckpt {

struct LocalOptions;

// What is about to be done, for people to agree to.
struct RejoinPlan {
  std::optional<CheckpointInfo> base;  // the last checkpoint; nothing: none, or it is discarded
  uint64_t stale_bytes = 0;            // which of the image differs from it, or may
};

struct RejoinOptions {
  std::string image_path;  // of the old primary; absolute
  std::string state_path;  // its state directory
  std::string shelf_path;  // backupd's --store; absolute
  bool discard = false;    // what it has answered for and the new primary lacks is given up
  bool force = false;      // also where nobody could say that its back-up was promoted
  std::string backup = "embedded";  // as the plugin's parameter, where its back-up has moved
  TlsOptions tls{};                 // to it
  std::function<Result<>(const RejoinPlan& plan)> on_ready;  // its failure is rejoin()'s
};

struct RejoinOutcome {
  Uuid volume;
  RejoinPlan plan;
  std::string store_path;     // the back-up's folder
  bool was_rejoined = false;  // before this call; the plan is not known any more
};

// Moves the image into SHELF/UUID, as a back-up of which is known what differs from the last
// checkpoint (docs/store-format.md), and removes its state directory. When the new primary has a
// session there, it ships that, and what has changed on its own side. The image of a back-up that
// was promoted goes back to its own folder, where it is already.
//
// Durability: all of it, when it returns. What was interrupted goes on when it is repeated; until
//             then the image is neither served nor a back-up.
// Failure:    nothing was changed, unless it says kHalfway. kBusy: a server, a tool or a backupd
// has
//             it. kInvalid: it has not been superseded, or cannot be moved there. kUnreachable:
//             nobody knows whether it has.
Result<RejoinOutcome> rejoin(const RejoinOptions& options);

// How a tool opens the old primary, as a server would: without clients, and asking its back-up.
Result<LocalOptions> options_without_server(const RejoinOptions& options);

// Whether the image could be moved there, as far as that can be told while it is the primary.
// Nothing is changed. kInvalid: it could not.
Result<> check_can_rejoin(const RejoinOptions& options);

// A store whose image has rejoined, and that the new primary refuses since it answered for what
// that one lacks: gives that up. All of the disk is compared then. kInvalid: it has not rejoined,
// or has a checkpoint again; kBusy: a backupd has it.
Result<> discard_bases(const std::string& store_path);

}  // namespace ckpt
