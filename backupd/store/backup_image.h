// SPDX-License-Identifier: Apache-2.0
// The back-up image, and the space in it that data still to be applied will need.
#pragma once

#include <map>
#include <memory>

#include "backupd/store/block_set.h"
#include "common/batch.h"
#include "common/file.h"
#include "common/mutex.h"

namespace ckpt {

// Space is taken ahead by so much, where an eighth of it is taken already, or will be by one epoch.
inline constexpr uint64_t kAheadBytes = uint64_t{1} << 20U;
inline constexpr uint64_t kAheadShare = 8;

// A raw, sparse file. Space is reserved when a batch arrives, so that applying it later does not
// run out; and a zero extent that is applied does not give back space that a later batch has
// reserved. Which blocks have their space is kept in memory, so a fully allocated image costs no
// system calls. Every block is allocated in place, though that is slow where they are scattered: a
// file system may find no space for a block only when it is synced, and that is final. So while
// space is ample it is taken ahead: the file may take up to 8 times what it holds, never more than
// the disk's size. What was taken ahead still reads as a hole, and is given back when space runs
// out.
//
// Threads:    reserve, drop and give_back by the session; apply and applied by the applier,
//             meanwhile; read, next_data, sync and create/open as File has them.
// Failure:    errors are the caller's to latch. After a failed apply() the content of the batch's
//             ranges is undefined until it is applied again.
// Durability: what was applied survives after sync(). A reservation may be lost with power:
//             applying then fails with kNoSpace at worst, and can be repeated.
class BackupImage {
 public:
  // Makes it, all holes, or takes one that an earlier attempt left.
  static Result<std::unique_ptr<BackupImage>> create(Directory& directory, uint64_t size_bytes);
  // Syncs it and finds out what has its space. kCorrupt if it is missing or not of that size.
  static Result<std::unique_ptr<BackupImage>> open(Directory& directory, uint64_t size_bytes);

  // Whether the file system could hold all of the disk besides what it holds now.
  void set_ample(bool is_ample) CKPT_EXCLUDES(mutex_);
  // Notes what a batch will do, and reserves space for its data. kNoSpace; the epoch must be
  // dropped then.
  Result<> reserve(const BatchHeader& header, const std::vector<Extent>& extents)
      CKPT_EXCLUDES(mutex_);
  // Notes what a confirmed batch will do, whose space was reserved in an earlier life.
  void expect(const Batch& batch) CKPT_EXCLUDES(mutex_);
  // The batches of an epoch will not be applied.
  void drop(Epoch epoch) CKPT_EXCLUDES(mutex_);
  // Gives back the space that was reserved or taken ahead in this life and that nothing waiting to
  // be applied will need.
  Result<> give_back() CKPT_EXCLUDES(mutex_);
  // The same for an earlier life's, which nobody remembers: looks at every hole of the image, once.
  Result<> give_back_holes() CKPT_EXCLUDES(mutex_);

  // Makes all of it a hole: there is no checkpoint, and nobody wants what is there.
  Result<> clear() CKPT_EXCLUDES(mutex_);

  // Writes data, punches zeroes.
  Result<> apply(Batch& batch) CKPT_EXCLUDES(mutex_);
  // All batches of epochs up to this have been applied.
  void applied(Epoch epoch) CKPT_EXCLUDES(mutex_);

  Result<> sync();
  Result<> read(uint64_t offset, ByteSpan buffer) { return file_->read(offset, buffer); }
  Result<std::optional<ByteRange>> next_data(uint64_t offset) { return file_->next_data(offset); }

 private:
  // What the batches of one epoch will write in the end.
  struct Expected {
    BlockSet data;     // in the end: not what a later zero extent covers
    BlockSet written;  // at any time: all that needs space
    uint64_t sequence_max = 0;
  };

  BackupImage(std::unique_ptr<File> file, uint64_t size_bytes)
      : file_(std::move(file)), size_bytes_(size_bytes) {}
  Result<> learn_allocated() CKPT_EXCLUDES(mutex_);
  Result<> reserve_blocks(BlockRange blocks, const BlockSet& coming) CKPT_REQUIRES(mutex_);
  [[nodiscard]] BlockRange with_ahead(BlockRange blocks, const BlockSet& coming) const
      CKPT_REQUIRES(mutex_);
  Result<> allocate(BlockRange blocks) CKPT_REQUIRES(mutex_);
  Result<> give_back_unwritten() CKPT_REQUIRES(mutex_);
  void note(const BatchHeader& header, const std::vector<Extent>& extents) CKPT_REQUIRES(mutex_);
  // The first run of blocks that are, or are not, in the sets of this epoch or a later one.
  [[nodiscard]] BlockRange run_at(BlockRange blocks, Epoch from, BlockSet Expected::*set,
                                  bool& is_in) const CKPT_REQUIRES(mutex_);
  Result<> apply_data(Batch& batch) CKPT_EXCLUDES(mutex_);
  Result<> apply_zeroes(const Extent& extent, Epoch epoch) CKPT_EXCLUDES(mutex_);

  std::unique_ptr<File> file_;
  const uint64_t size_bytes_;
  // Held over allocating and punching, so that neither undoes the other; not over writes.
  Mutex mutex_;
  bool is_ample_ CKPT_GUARDED_BY(mutex_) = false;
  bool are_holes_free_ CKPT_GUARDED_BY(mutex_) = false;  // give_back_holes() was done
  BlockSet allocated_ CKPT_GUARDED_BY(mutex_);           // known to have their space
  // Those of them that were holes and still read as such.
  BlockSet unwritten_ CKPT_GUARDED_BY(mutex_);
  std::map<Epoch, Expected> expected_ CKPT_GUARDED_BY(mutex_);
};

}  // namespace ckpt
