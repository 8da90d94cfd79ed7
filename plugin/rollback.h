// SPDX-License-Identifier: Apache-2.0
// Restoring the image from the store: steps 1 to 4 of design 3, "Rollback to checkpoint n".
#pragma once

#include "plugin/session.h"
#include "plugin/volume_api.h"

namespace ckpt {

// Threads:    one at a time, with no request and no shipping under way.
// Durability: a rollback that has begun is on record and goes on at the next start, before anything
// is
//             served; run() returns when the image is the checkpoint's, durably.
class Rollback {
 public:
  Rollback(Disk& disk, StoreLink& store, VolumeRecordFile& record, Random& random)
      : disk_(disk), store_(store), record_(record), random_(random) {}

  // Step 1: records durably where it goes.
  Result<> begin(const CheckpointId& checkpoint, bool fence);
  // Steps 2 to 4, of the rollback on record. The bytes that were written back.
  Result<uint64_t> run(const Progress& progress);

 private:
  Result<> mark_changed();
  Result<> check_store();
  Result<uint64_t> restore_changed(const Progress& progress);
  Result<> finish();

  Disk& disk_;
  StoreLink& store_;
  VolumeRecordFile& record_;
  Random& random_;
};

}  // namespace ckpt
