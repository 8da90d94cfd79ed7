// SPDX-License-Identifier: Apache-2.0
// Compares primary and store block by block, while both are in use.
#pragma once

#include <span>

#include "plugin/disk.h"
#include "plugin/volume_api.h"

namespace ckpt {

// Threads: any; beside writers and checkpoints. Only blocks that are unchanged since the store's
// last
//          checkpoint are compared; one that changes, or is checkpointed, meanwhile is looked at
//          again.
class Verifier {
 public:
  // seed: of the digests by which blocks are compared; drawn for this.
  Verifier(Disk& disk, StoreLink& store, uint64_t seed);
  // Fills in all but the checkpoint.
  Result<VerifyOutcome> verify(const Progress& progress);

 private:
  Result<uint64_t> skip_holes(uint64_t offset);
  Result<> verify_window(BlockRange window, VerifyOutcome& outcome, const Progress& progress);
  // theirs: the store's digests of these blocks.
  Result<> verify_chunk(BlockRange chunk, std::span<const Digest> theirs, VerifyOutcome& outcome);
  // Of blocks that are a hole here: whether the store has zeroes there.
  Result<bool> is_hole(BlockRange blocks, std::span<const Digest> theirs);
  Result<bool> has_digests(BlockRange blocks, std::span<const Digest> theirs, bool& changed);
  // The content of blocks that are not changed; nothing: some of it is.
  Result<std::vector<std::byte>> read_unchanged(BlockRange blocks);
  Result<> verify_block(BlockRange block, VerifyOutcome& outcome);
  Result<bool> is_equal(BlockRange blocks, bool& changed);
  void count_holes(ByteRange range, VerifyOutcome& outcome) const;
  void add_mismatch(BlockRange block, VerifyOutcome& outcome) const;

  Disk& disk_;
  StoreLink& store_;
  const uint64_t seed_;
  const Digest zero_;  // of a block of zeroes
};

}  // namespace ckpt
