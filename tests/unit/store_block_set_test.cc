// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <random>
#include <set>

#include "backupd/store/block_set.h"

namespace ckpt::test {
namespace {

constexpr uint64_t kBlocks = 3 * 16384 + 100;  // over three chunks

// What find() must say, the slow way.
std::optional<BlockRange> find_in(const std::set<uint64_t>& model, BlockRange within,
                                  bool present) {
  uint64_t first = within.first;
  while (first < within.end && model.contains(first) != present) {
    ++first;
  }
  uint64_t end = first;
  while (end < within.end && model.contains(end) == present) {
    ++end;
  }
  return first < end ? std::optional(BlockRange{first, end}) : std::nullopt;
}

TEST(BlockSet, AgreesWithASetOfNumbers) {
  std::mt19937_64 random(1);
  BlockSet set;
  std::set<uint64_t> model;
  for (int i = 0; i < 600; ++i) {
    const uint64_t first = random() % kBlocks;
    const uint64_t reach = random() % 8 == 0 ? kBlocks : 200;
    const BlockRange range{first, std::min(kBlocks, first + 1 + random() % reach)};
    const bool adds = random() % 2 == 0;
    adds ? set.add(range) : set.remove(range);
    for (uint64_t block = range.first; block < range.end; ++block) {
      adds ? static_cast<void>(model.insert(block)) : static_cast<void>(model.erase(block));
    }
    const uint64_t from = random() % kBlocks;
    const BlockRange within{from, from + random() % (kBlocks - from + 1)};
    for (const bool present : {true, false}) {
      ASSERT_EQ(set.find(within, present), find_in(model, within, present)) << "step " << i;
    }
    ASSERT_EQ(set.empty(), model.empty());
    const auto counted = std::distance(model.lower_bound(within.first),
                                       model.lower_bound(std::max(within.first, within.end)));
    ASSERT_EQ(set.count(within), static_cast<uint64_t>(counted)) << "step " << i;
  }
}

// Single blocks, in two orders: runs first, then bits, then one run.
TEST(BlockSet, ManyRunsBecomeOne) {
  BlockSet set;
  for (uint64_t block = 0; block < kBlocks; block += 2) {
    set.add({block, block + 1});
    ASSERT_EQ(set.find({0, kBlocks}, true), (BlockRange{0, 1}));
  }
  ASSERT_EQ(set.find({1, kBlocks}, true), (BlockRange{2, 3}));
  for (uint64_t block = 1; block < kBlocks; block += 2) {
    set.add({block, block + 1});
  }
  EXPECT_EQ(set.find({0, kBlocks}, true), (BlockRange{0, kBlocks}));
  for (uint64_t block = 0; block < kBlocks; block += 3) {
    set.remove({block, std::min(block + 2, kBlocks)});
  }
  EXPECT_EQ(set.find({0, kBlocks}, true), (BlockRange{2, 3}));
  for (uint64_t block = 2; block < kBlocks; block += 3) {
    ASSERT_EQ(set.find({0, kBlocks}, true), (BlockRange{block, block + 1}));
    set.remove({block, block + 1});
  }
  EXPECT_TRUE(set.empty());
}

TEST(BlockSet, WholeDiskIsCheap) {
  BlockSet set;
  const BlockRange disk{0, uint64_t{1} << 28U};  // 1 TiB
  set.add(disk);
  EXPECT_EQ(set.find(disk, true), disk);
  EXPECT_FALSE(set.find(disk, false));
  set.remove({5, 6});
  EXPECT_EQ(set.find(disk, false), (BlockRange{5, 6}));
  set.remove(disk);
  EXPECT_TRUE(set.empty());
}

TEST(BlockSet, EmptyRanges) {
  BlockSet set;
  set.add({7, 7});
  set.remove({7, 7});
  EXPECT_TRUE(set.empty());
  EXPECT_FALSE(set.find({7, 7}, false));
  EXPECT_EQ(set.find({7, 9}, false), (BlockRange{7, 9}));
}

}  // namespace
}  // namespace ckpt::test
