// SPDX-License-Identifier: Apache-2.0
// The back-up image as it was at one instant, while it goes on to change.
#pragma once

#include <atomic>
#include <functional>

#include "backupd/store/backup_image.h"
#include "common/aligned_buffer.h"
#include "common/store_link.h"

namespace ckpt {

// Hands the image over to a sink from its start to its end. What is about to change before its turn
// is handed over first, so nothing of the old content has to be kept anywhere.
//
// Threads:  step() by whoever exports, preserve() by the applier, at once; each may wait for the
//           sink.
// Lifetime: image and sink outlive it.
// Failure:  the first error, of the image or the sink, ends it; every step() returns it. Whoever
//           preserves is not told: what it does must not fail because of an export.
class Snapshot {
 public:
  // must_end: asked before each part that is handed over because it is about to change; true ends
  // the snapshot (kBusy) instead.
  Snapshot(
      BackupImage& image, uint64_t size_bytes, ExportSink& sink,
      std::function<bool()> must_end = [] { return false; })
      : image_(image),
        size_bytes_(size_bytes),
        sink_(sink),
        must_end_(std::move(must_end)),
        buffer_(kPieceBytes) {}

  // What the image is. Before anything else.
  void set_checkpoint(const CheckpointInfo& checkpoint) CKPT_EXCLUDES(mutex_);
  // Only these are to be handed over. Before anything is.
  void choose(const BlockSet& wanted) CKPT_EXCLUDES(mutex_);
  // Hands over the next hole, or at most kPieceBytes of data. False: that was all.
  Result<bool> step() CKPT_EXCLUDES(mutex_);
  // Hands over what of these the sink does not have: they are about to change.
  void preserve(const std::vector<Extent>& extents) CKPT_EXCLUDES(mutex_);

 private:
  Result<> preserve_blocks(BlockRange blocks) CKPT_REQUIRES(mutex_);
  // Hands over the first hole or data of a range; where it ends.
  Result<uint64_t> hand_over(ByteRange range) CKPT_REQUIRES(mutex_);

  BackupImage& image_;
  const uint64_t size_bytes_;
  ExportSink& sink_;
  const std::function<bool()> must_end_;
  // Who preserves goes first: others wait for it.
  std::atomic<uint32_t> preserving_{0};
  // Held while the sink takes something: what it does not have yet must not change meanwhile.
  Mutex mutex_;
  CondVar preserved_;
  AlignedBuffer buffer_ CKPT_GUARDED_BY(mutex_);
  CheckpointInfo checkpoint_ CKPT_GUARDED_BY(mutex_);
  bool has_begun_ CKPT_GUARDED_BY(mutex_) = false;   // the sink knows the checkpoint
  uint64_t next_block_ CKPT_GUARDED_BY(mutex_) = 0;  // before it the sink has everything
  BlockSet ahead_ CKPT_GUARDED_BY(mutex_);           // and these, or is not to have them
  std::optional<Error> ended_ CKPT_GUARDED_BY(mutex_);
};

}  // namespace ckpt
