// SPDX-License-Identifier: Apache-2.0
// Fail-over: a back-up becomes the primary, with the image that it has.
#pragma once

#include <functional>
#include <optional>
#include <string>

#include "common/address.h"
#include "common/result.h"
#include "common/store_link.h"

namespace ckpt {

struct PromoteOptions {
  std::string store_path;  // of a store by itself, absolute
  bool force = false;      // also where its primary's image is there, or its primary is connected
  bool fences = false;     // on_ready() sees to it that the old primary is dead
  std::optional<Address> backupd{};  // that has the store; nothing: the one of the folder above
  // Runs when all that can be checked was, and before anything is done: before a connected primary
  // is cut off, too; but not where it was done before. Its failure is promote()'s.
  std::function<Result<>(const CheckpointInfo& last)> on_ready;
};

struct PromoteOutcome {
  Uuid volume;
  CheckpointInfo checkpoint;  // which the image is; its timeline is the new one
  std::string image;          // what is to be served from here on
  bool was_promoted = false;  // before this call
};

// Applies what is confirmed, drops what is pending, and starts a new timeline: from then on the
// store refuses its old primary, also after a restart. Then makes the image's state directory,
// IMAGE.ckpt, where there is none yet: a server of the image goes on from that checkpoint.
//
// Durability: all of it, when it returns. Repeating what was interrupted completes it.
// Failure:    kHalfway: it is promoted, and repeating this completes it. Otherwise nothing was
//             changed: kBusy: a server has the store, or its primary is connected to the backupd
//             that has it; kNotFound: no checkpoint;
//             kInvalid: the primary is there, or the image's state is another volume's.
Result<PromoteOutcome> promote(const PromoteOptions& options);

// Whether the store in that folder was promoted; one that a backupd has, too.
Result<bool> is_promoted(const std::string& store_path);

}  // namespace ckpt
