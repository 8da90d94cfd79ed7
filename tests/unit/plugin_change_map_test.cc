// SPDX-License-Identifier: Apache-2.0
// A map of blocks against a set of them, and how a disk is divided into regions.
#include <gtest/gtest.h>
#include <sys/mman.h>

#include <algorithm>
#include <random>
#include <set>
#include <thread>

#include "plugin/change_map.h"

namespace ckpt {
namespace {

// Regions of 64 blocks, one of them short, and a short last block.
constexpr Geometry kSmall{.size_bytes = (5 * 64 + 19) * kBlockBytes + 100,
                          .region_bytes = 64 * kBlockBytes};

using Blocks = std::set<uint64_t>;

// The same operations on a map and on a set.
class MapModel {
 public:
  explicit MapModel(const Geometry& geometry)
      : memory_(geometry.map_bytes()), map(geometry, memory_.bytes()) {}

  void set(BlockRange range) {
    map.set(range);
    for (uint64_t block = range.first; block < range.end; ++block) {
      blocks.insert(block);
    }
  }
  void take(BlockRange range) {
    std::vector<BlockRange> taken;
    map.take(range, taken);
    EXPECT_EQ(taken, runs_in(range));
    blocks.erase(blocks.lower_bound(range.first), blocks.lower_bound(range.end));
  }
  // The runs of the set within a range.
  [[nodiscard]] std::vector<BlockRange> runs_in(BlockRange range) const {
    std::vector<BlockRange> runs;
    for (auto at = blocks.lower_bound(range.first); at != blocks.end() && *at < range.end; ++at) {
      if (!runs.empty() && runs.back().end == *at) {
        ++runs.back().end;
      } else {
        runs.push_back({*at, *at + 1});
      }
    }
    return runs;
  }
  void expect_equal() const {
    EXPECT_EQ(map.count(), blocks.size());
    Blocks found;
    map.for_each_run([&](BlockRange run) {
      EXPECT_EQ(run.first / map.geometry().blocks_per_region(),
                (run.end - 1) / map.geometry().blocks_per_region());
      for (uint64_t block = run.first; block < run.end; ++block) {
        EXPECT_TRUE(found.insert(block).second);
      }
    });
    EXPECT_EQ(found, blocks);
  }
  void expect_regions_equal() const {
    for (uint64_t region = 0; region < map.geometry().regions(); ++region) {
      const auto runs = runs_in(map.geometry().region_blocks(region));
      uint64_t count = 0;
      for (const BlockRange& run : runs) {
        count += run.count();
      }
      EXPECT_EQ(map.count_in(region), count);
      EXPECT_EQ(map.region_empty(region), runs.empty());
      // A region with a bit is always on the list.
      EXPECT_TRUE(runs.empty() || map.next_region(region) == region);
    }
  }

 private:
  MapMemory memory_;

 public:
  ChangeMap map;
  Blocks blocks;
};

TEST(Geometry, DividesADisk) {
  EXPECT_EQ(kSmall.blocks(), 5U * 64 + 20);
  EXPECT_EQ(kSmall.regions(), 6U);
  EXPECT_EQ(kSmall.region_blocks(1), (BlockRange{64, 128}));
  EXPECT_EQ(kSmall.region_blocks(5), (BlockRange{320, 340}));
  EXPECT_EQ(kSmall.regions_of({63, 64}), (BlockRange{0, 1}));
  EXPECT_EQ(kSmall.regions_of({63, 65}), (BlockRange{0, 2}));
  EXPECT_EQ(kSmall.regions_of({0, 340}), (BlockRange{0, 6}));
  EXPECT_EQ(kSmall.map_bytes(), 6U * 8);
}

TEST(Geometry, HasAtMost65536Regions) {
  constexpr uint64_t kUnit = uint64_t{4} << 20U;
  EXPECT_EQ(Geometry::of_disk(1).regions(), 1U);
  EXPECT_EQ(Geometry::of_disk(65536 * kUnit).region_bytes, kUnit);
  EXPECT_EQ(Geometry::of_disk(65536 * kUnit + 1).region_bytes, 2 * kUnit);
  const Geometry largest = Geometry::of_disk(kDiskBytesMax);
  EXPECT_EQ(largest.regions(), 65536U);
  EXPECT_EQ(largest.blocks_per_region() % 64, 0U);
}

TEST(ChangeMap, IsASetOfBlocksAtEveryBorder) {
  const std::vector<uint64_t> borders{0, 1, 63, 64, 65, 127, 128, 319, 320, 321, 339, 340};
  for (const uint64_t first : borders) {
    for (const uint64_t end : borders) {
      if (first >= end) {
        continue;
      }
      MapModel model(kSmall);
      model.set({first, end});
      model.expect_equal();
      model.expect_regions_equal();
      EXPECT_TRUE(model.map.any({first, first + 1}));
      EXPECT_TRUE(model.map.any({end - 1, end}));
      EXPECT_EQ(model.map.any({0, first > 0 ? first : 1}), first == 0);
      EXPECT_EQ(model.map.next_run({0, 340}), (BlockRange{first, end}));
      model.take({first, end});
      model.expect_equal();
      EXPECT_EQ(model.map.next_run({0, 340}), std::nullopt);
    }
  }
}

TEST(ChangeMap, IsASetOfBlocksUnderRandomOperations) {
  std::mt19937_64 random(1);
  for (int round = 0; round < 20; ++round) {
    MapModel model(kSmall);
    for (int step = 0; step < 200; ++step) {
      const uint64_t first = random() % kSmall.blocks();
      const uint64_t end = first + 1 + random() % std::min<uint64_t>(90, kSmall.blocks() - first);
      switch (random() % 5) {
        case 0:
        case 1: model.set({first, end}); break;
        case 2: model.take({first, end}); break;
        case 3: model.map.tidy(first / 64); break;
        default: EXPECT_EQ(model.map.any({first, end}), !model.runs_in({first, end}).empty());
      }
    }
    model.expect_equal();
    model.expect_regions_equal();
  }
}

TEST(ChangeMap, NextRunIsCutOffAtBothEnds) {
  MapModel model(kSmall);
  model.set({10, 200});
  EXPECT_EQ(model.map.next_run({0, 20}), (BlockRange{10, 20}));
  EXPECT_EQ(model.map.next_run({50, 190}), (BlockRange{50, 190}));
  EXPECT_EQ(model.map.next_run({150, 340}), (BlockRange{150, 200}));
  EXPECT_EQ(model.map.next_run({200, 340}), std::nullopt);
}

TEST(ChangeMap, TidyTakesEmptyRegionsOffTheList) {
  MapModel model(kSmall);
  model.set({64, 65});
  model.set({320, 321});
  model.take({64, 65});
  EXPECT_EQ(model.map.next_region(0), 1U);
  model.map.tidy(1);
  EXPECT_EQ(model.map.next_region(0), 5U);
  model.map.tidy(5);
  EXPECT_EQ(model.map.next_region(0), 5U);
  EXPECT_EQ(model.map.next_region(6), std::nullopt);
}

TEST(ChangeMap, TakeAllMovesAndAddAllCopies) {
  MapModel from(kSmall);
  MapModel to(kSmall);
  from.set({1, 3});
  from.set({60, 70});
  to.set({2, 5});
  to.map.add_all(from.map);
  to.blocks.insert(from.blocks.begin(), from.blocks.end());
  to.expect_equal();
  from.expect_equal();
  to.set({330, 340});
  from.set({335, 338});
  to.map.take_all(from.map);
  to.expect_equal();
  from.blocks.clear();
  from.expect_equal();
  EXPECT_EQ(from.map.next_region(0), std::nullopt);
}

TEST(ChangeMap, ClearLeavesNothing) {
  MapModel model(kSmall);
  model.set({0, 340});
  model.map.clear();
  model.blocks.clear();
  model.expect_equal();
  EXPECT_EQ(model.map.next_region(0), std::nullopt);
}

// How many pages of it are in memory, the ends left out.
size_t resident_pages(ByteSpan memory) {
  constexpr uintptr_t kPage = 4096;
  const auto begin = reinterpret_cast<uintptr_t>(memory.data());
  const uintptr_t first = begin / kPage * kPage + kPage;
  std::vector<unsigned char> pages((begin + memory.size() - first) / kPage);
  EXPECT_EQ(mincore(reinterpret_cast<void*>(first), pages.size() * kPage, pages.data()), 0);
  return static_cast<size_t>(std::ranges::count_if(pages, [](auto page) { return page & 1U; }));
}

TEST(ChangeMap, AnEmptyMapOfALargeDiskShedsItsMemory) {
  const Geometry large = Geometry::of_disk(uint64_t{64} << 30U);
  MapMemory memory(large.map_bytes());
  ChangeMap map(large, memory.bytes());
  for (uint64_t block = 0; block < large.blocks(); block += 8192) {
    map.set({block, block + 1});
  }
  EXPECT_GT(resident_pages(memory.bytes()), 500U);
  map.clear();
  map.shed_memory();
  EXPECT_EQ(resident_pages(memory.bytes()), 0U);
  map.set({12345, 12346});
  EXPECT_EQ(map.next_run({0, large.blocks()}), (BlockRange{12345, 12346}));
  EXPECT_EQ(map.count(), 1U);
}

TEST(ChangeMap, BitsThatAnEarlierProcessLeftCountOnceCounted) {
  MapMemory memory(kSmall.map_bytes());
  {
    ChangeMap before(kSmall, memory.bytes());
    before.set({60, 70});
    before.set({339, 340});
  }
  ChangeMap after(kSmall, memory.bytes());
  EXPECT_EQ(after.count(), 0U);
  after.count_bits({0, 16});
  EXPECT_EQ(after.count(), 10U);
  // Whole pages may be given, and be longer than the map.
  after.count_bits({16, 4096});
  EXPECT_EQ(after.count(), 11U);
  EXPECT_EQ(after.next_region(2), 5U);
  EXPECT_TRUE(after.any({339, 340}));
}

TEST(ChangeMap, TwoThreadsLoseNoBitAndCountExactly) {
  MapMemory memory(kSmall.map_bytes());
  ChangeMap map(kSmall, memory.bytes());
  constexpr int kRounds = 5000;
  std::atomic<bool> done{false};
  uint64_t taken_blocks = 0;
  std::thread taker([&] {
    while (true) {
      const bool last = done.load();
      std::vector<BlockRange> taken;
      map.take({0, 128}, taken);
      map.tidy(0);
      map.tidy(1);
      for (const BlockRange& run : taken) {
        taken_blocks += run.count();
      }
      if (last) {
        return;
      }
    }
  });
  uint64_t set_blocks = 0;
  for (int round = 0; round < kRounds; ++round) {
    const auto block = static_cast<uint64_t>(round) % 128;
    if (!map.any({block, block + 1})) {
      map.set({block, block + 1});
      ++set_blocks;
    }
    map.set({128, 129});
  }
  done.store(true);
  taker.join();
  EXPECT_EQ(taken_blocks, set_blocks);
  EXPECT_EQ(map.count(), 1U);
}

// The flag that says where to look must never hide a bit, whatever tidy() does beside.
TEST(ChangeMap, ABitThatIsSetWhileItsRegionIsTidiedIsFound) {
  MapMemory memory(kSmall.map_bytes());
  ChangeMap map(kSmall, memory.bytes());
  for (int round = 0; round < 300; ++round) {
    std::thread tidier([&] { map.tidy(0); });
    map.set({5, 6});
    tidier.join();
    EXPECT_EQ(map.next_region(0), 0U);
    map.clear();
  }
}

}  // namespace
}  // namespace ckpt
