// SPDX-License-Identifier: Apache-2.0
// A draft: blocks read from the primary that will be a batch.
#pragma once

#include <span>
#include <vector>

#include "common/aligned_buffer.h"
#include "common/batch.h"
#include "common/block.h"
#include "common/file.h"

namespace ckpt {

// Memory for one batch, used again for the next: it is large, and fresh pages cost more than what
// is done with them. Blocks of zeroes become extents without data.
//
// Threads: none of its own.
class Draft {
 public:
  // Room for so many bytes, and never more.
  explicit Draft(uint64_t bytes);

  // Begins anew.
  void begin(uint64_t sequence);
  // Memory to read the next blocks into. Valid until add().
  [[nodiscard]] ByteSpan room(uint64_t bytes);
  // These were read, one after the other, from the start of the room on.
  void add(std::span<const Transfer> transfers);
  // Whole blocks of zeroes, as many as there are: they take no memory.
  void add_hole(ByteRange range);

  [[nodiscard]] bool empty() const { return extents_.empty(); }
  [[nodiscard]] uint64_t sequence() const { return sequence_; }
  [[nodiscard]] uint64_t blocks() const { return blocks_; }
  [[nodiscard]] const std::vector<Extent>& extents() const { return extents_; }
  [[nodiscard]] ConstByteSpan data() const { return memory_.span().first(used_); }

 private:
  void add_blocks(uint64_t offset, ByteSpan bytes);

  const uint64_t bytes_;
  AlignedBuffer memory_;  // blocks keep their alignment in it
  uint64_t used_ = 0;
  uint64_t sequence_ = 0;
  uint64_t blocks_ = 0;
  std::vector<Extent> extents_;
};

}  // namespace ckpt
