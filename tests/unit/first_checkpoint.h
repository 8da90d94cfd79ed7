// SPDX-License-Identifier: Apache-2.0
// The batches of a volume's first checkpoint, and what confirms it.
#pragma once

#include <map>

#include "tests/unit/store_peer.h"

namespace ckpt::test {

class FirstCheckpoint {
 public:
  EncodedBatch batch(uint64_t epoch, const std::vector<Extent>& extents) {
    EncodedBatch made = peer_.batch(peer_.next_sequence++, epoch, extents);
    chains_[epoch] = chain(chains_[epoch], made.header);
    return made;
  }
  Confirmation confirmation(uint64_t number) {
    Confirmation made = peer_.confirmation(number);
    for (const auto& [epoch, links] : chains_) {
      made.covered.push_back({{epoch}, links});
    }
    made.checkpoint.digest = checkpoint_digest(Digest{}, peer_.timeline, {number}, made.covered);
    return made;
  }

 protected:
  MemoryDisk unused_;
  StorePeer peer_{unused_};  // makes batches; its own store is not opened
  std::map<uint64_t, Digest> chains_;
};

}  // namespace ckpt::test
