// SPDX-License-Identifier: Apache-2.0
// Compares primary and store block by block, while both are in use.
#pragma once

#include "plugin/disk.h"
#include "plugin/volume_api.h"

namespace ckpt {

// Threads: any; beside writers and checkpoints. Only blocks that are unchanged since the store's
// last
//          checkpoint are compared; one that changes, or is checkpointed, meanwhile is looked at
//          again.
class Verifier {
 public:
  Verifier(Disk& disk, StoreLink& store) : disk_(disk), store_(store) {}
  // Fills in all but the checkpoint.
  Result<VerifyOutcome> verify(const Progress& progress);

 private:
  Result<uint64_t> skip_holes(uint64_t offset);
  Result<> verify_chunk(BlockRange chunk, VerifyOutcome& outcome);
  Result<> verify_block(BlockRange block, VerifyOutcome& outcome);
  Result<bool> is_equal(BlockRange blocks, bool& changed);
  void count_holes(ByteRange range, VerifyOutcome& outcome) const;
  void add_mismatch(BlockRange block, VerifyOutcome& outcome) const;

  Disk& disk_;
  StoreLink& store_;
};

}  // namespace ckpt
