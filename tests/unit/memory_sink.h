// SPDX-License-Identifier: Apache-2.0
// An export's destination in memory, which checks that every byte comes once.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <optional>
#include <set>
#include <vector>

#include "common/store_link.h"

namespace ckpt::test {

// Threads: as an ExportSink's; tests set the functions before.
class MemorySink : public ExportSink {
 public:
  std::optional<CheckpointInfo> checkpoint;
  std::vector<std::byte> content;  // what was not handed over is 0xee
  uint64_t zeroed_bytes = 0;       // told as holes
  std::function<Result<>(ByteRange)> on_take = [](ByteRange) { return Result<>(); };

  Result<> begin(const CheckpointInfo& begun, uint64_t size_bytes) override {
    EXPECT_FALSE(checkpoint);
    checkpoint = begun;
    content.assign(size_bytes, std::byte{0xee});
    return {};
  }
  Result<> write(uint64_t offset, ConstByteSpan data) override {
    EXPECT_LE(data.size(), kPieceBytes);
    CKPT_TRY(take({offset, data.size()}));
    std::ranges::copy(data, content.begin() + static_cast<std::ptrdiff_t>(offset));
    return {};
  }
  Result<> zero(ByteRange range) override {
    CKPT_TRY(take(range));
    zeroed_bytes += range.length;
    const auto begin = content.begin() + static_cast<std::ptrdiff_t>(range.offset);
    std::fill(begin, begin + static_cast<std::ptrdiff_t>(range.length), std::byte{0});
    return {};
  }
  [[nodiscard]] bool has_all() const { return taken_.size() == block_count(content.size()); }

 private:
  Result<> take(ByteRange range) {
    EXPECT_TRUE(checkpoint);
    EXPECT_LE(range.end(), content.size());
    EXPECT_EQ(range.offset % kBlockBytes, 0U);
    const BlockRange blocks = blocks_of(range);
    for (uint64_t block = blocks.first; block < blocks.end; ++block) {
      EXPECT_TRUE(taken_.insert(block).second) << "block " << block << " came twice";
    }
    return on_take(range);
  }

  std::set<uint64_t> taken_;
};

}  // namespace ckpt::test
