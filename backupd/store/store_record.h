// SPDX-License-Identifier: Apache-2.0
// What the store's `volume` file says.
//
// Format: docs/store-format.md
#pragma once

#include <optional>
#include <vector>

#include "backupd/store/journal_format.h"
#include "common/store_link.h"

namespace ckpt {

// Of an image that was a primary's, and is to become a back-up.
struct RejoinedImage {
  Digest stale;                       // of the map of the blocks that are not as in the bases
  std::vector<BaseCheckpoint> bases;  // as a greeting has them; none: nothing is known of any block
};

struct StoreRecord {
  Uuid volume;
  uint64_t size_bytes = 0;
  uint64_t incarnation = 0;  // the last one accepted; 0: none
  std::optional<CheckpointInfo>
      last;                   // the last confirmed checkpoint; its timeline is the current one
  Epoch applied;              // the image is this checkpoint, or on its way to a later one
  JournalPosition confirmed;  // of last's confirm record; none if it is applied
  std::vector<CheckpointId> forks;  // where older timelines ended, oldest first; at most kForksMax
  // Fail-over: the image is a primary now, from the last checkpoint on; no session begins any more.
  bool promoted = false;
  // A checkpoint came from another store once: a confirm record may cover epochs from before its
  // checkpoint's parent.
  bool has_copies = false;
  // What the image is until the first checkpoint is confirmed.
  std::optional<RejoinedImage> rejoined;

  // Promoted, and all is applied: the image is another's.
  [[nodiscard]] bool is_handed_over() const { return promoted && applied == last->id.number; }
  // Ends a timeline at the last checkpoint, which goes on in another.
  void fork_to(const Uuid& timeline);
  // Whether id is the last checkpoint, by its own name or by the one it had before it was forked.
  [[nodiscard]] bool is_last(const CheckpointId& id) const;
  // Whether that is the current timeline, or one that ended.
  [[nodiscard]] bool has_timeline(const Uuid& timeline) const;
};

std::vector<std::byte> encode_store_record(const StoreRecord& record);
// kCorrupt: damaged; kInvalid: written by a newer version.
Result<StoreRecord> decode_store_record(ConstByteSpan bytes);

}  // namespace ckpt
