// SPDX-License-Identifier: Apache-2.0
// Writing the primary image anew from the store, where it is missing or damaged.
#pragma once

#include "backupd/store/store_record.h"
#include "plugin/volume_record.h"

namespace ckpt {

struct RebuildTarget {
  std::optional<CheckpointId> checkpoint;  // nothing: the store's last
  bool fence = false;                      // no client may connect afterwards until accept
  Uuid to;                                 // the timeline that begins there
};

// Changes the record so that the next start takes every block for changed and rolls back before
// anything is served. Durable before the image is touched: a crash in between must not make an
// empty image look like the disk. kNotFound: the store has no such checkpoint; kFenced: it is not
// this volume's, or they have diverged.
Result<> plan_rebuild(VolumeRecord& record, const StoreRecord& store, const RebuildTarget& target);

}  // namespace ckpt
