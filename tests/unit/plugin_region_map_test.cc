// SPDX-License-Identifier: Apache-2.0
// Region marks: durable before a write may start, taken back only when nothing needs them.
#include <gtest/gtest.h>

#include <cerrno>

#include "plugin/region_map.h"
#include "tests/unit/golden_file.h"
#include "tests/unit/plugin_fakes.h"

namespace ckpt::test {
namespace {

// 16 regions of 64 blocks.
constexpr Geometry kGeometry{.size_bytes = 16 * 64 * kBlockBytes, .region_bytes = 64 * kBlockBytes};
constexpr BlockRange kRegion0{0, 1};

BlockRange in_region(uint64_t region) { return {region * 64 + 3, region * 64 + 4}; }

class RegionMapTest : public testing::Test {
 protected:
  RegionMapTest() {
    map_ = create();
    set_hooks();
  }

  std::unique_ptr<RegionMap> create(RegionMap::Marks marks = RegionMap::Marks::kNone) {
    auto map = RegionMap::create(*directory_, uuid_of(1), kGeometry, marks);
    EXPECT_TRUE(map) << map.error().message();
    return std::move(*map);
  }
  void set_hooks() {
    map_->set_hooks({.prepare = [this](BlockRange regions) -> Result<> {
                       if (fail_prepare_) {
                         return fail(ErrorKind::kNoSpace, "no memory for the maps");
                       }
                       prepared_.insert(regions.first);
                       return {};
                     },
                     .on_failure = [this](const Error&) -> Result<> {
                       if (fail_fallback_) {
                         return fail(ErrorKind::kIo, "no record either");
                       }
                       everything_recorded_ = true;
                       return {};
                     },
                     .has_changes = [this](uint64_t region) { return changed_.contains(region); }});
  }
  void reopen() {
    auto map = RegionMap::open(*directory_, uuid_of(1), kGeometry);
    ASSERT_DONE(map);
    map_ = std::move(*map);
    set_hooks();
  }
  // Power fails now; the marks that are there afterwards.
  std::set<uint64_t> marks_after_power_loss(uint64_t seed = 0) {
    machine_.lose_power(seed);
    directory_ = machine_.root();
    auto map = RegionMap::open(*directory_, uuid_of(1), kGeometry);
    EXPECT_TRUE(map) << map.error().message();
    std::set<uint64_t> marks;
    for (uint64_t region = 0; map && region < kGeometry.regions(); ++region) {
      if ((*map)->is_marked(region)) {
        marks.insert(region);
      }
    }
    return marks;
  }
  // Calls it until a region without use is really idle.
  void unmark_idle() {
    for (int call = 0; call < 3; ++call) {
      ASSERT_DONE(map_->unmark_some());
    }
  }

  MemoryDisk machine_;
  std::unique_ptr<Directory> directory_ = machine_.root();
  std::unique_ptr<RegionMap> map_;
  std::set<uint64_t> prepared_;
  std::set<uint64_t> changed_;
  bool fail_prepare_ = false;
  bool fail_fallback_ = false;
  bool everything_recorded_ = false;
};

TEST_F(RegionMapTest, AMarkIsDurableBeforePinReturns) {
  ASSERT_DONE(map_->pin(in_region(9)));
  EXPECT_TRUE(map_->is_marked(9));
  EXPECT_TRUE(prepared_.contains(9));
  EXPECT_TRUE(marks_after_power_loss().contains(9));
}

TEST_F(RegionMapTest, AllRegionsOfARangeAreMarkedAndSomeAhead) {
  ASSERT_DONE(map_->pin({64 * 2 + 63, 64 * 4 + 1}));
  const auto marks = marks_after_power_loss();
  EXPECT_FALSE(marks.contains(1));
  for (uint64_t region = 2; region <= 8; ++region) {
    EXPECT_TRUE(marks.contains(region)) << region;
  }
  EXPECT_FALSE(marks.contains(9));
}

// A sequential pass over 300 regions.
TEST_F(RegionMapTest, TheMoreIsMarkedBeforeTheMoreIsMarkedAhead) {
  constexpr Geometry kLarge{.size_bytes = 300 * 64 * kBlockBytes, .region_bytes = 64 * kBlockBytes};
  ASSERT_DONE(directory_->remove("regions"));
  auto map = RegionMap::create(*directory_, uuid_of(1), kLarge, RegionMap::Marks::kNone);
  ASSERT_DONE(map);
  (*map)->set_hooks({.prepare = {}, .on_failure = {}, .has_changes = {}});
  std::vector<uint64_t> marked;  // how many after each time that some were marked
  for (uint64_t region = 0; region < kLarge.regions(); ++region) {
    const uint64_t before = (*map)->marked_count();
    ASSERT_DONE((*map)->pin(in_region(region)));
    if ((*map)->marked_count() != before) {
      marked.push_back((*map)->marked_count());
    }
  }
  // At first 4 more than are needed, then as many as there are, in the end 64.
  EXPECT_EQ(marked, (std::vector<uint64_t>{5, 11, 23, 47, 95, 160, 225, 290, 300}));
}

TEST_F(RegionMapTest, AMarkedRegionCostsNoIo) {
  ASSERT_DONE(map_->pin(kRegion0));
  machine_.count_from_here();
  ASSERT_DONE(map_->pin(kRegion0));
  ASSERT_DONE(map_->pin(in_region(3)));  // marked ahead
  EXPECT_EQ(machine_.operations(), 0U);
}

TEST_F(RegionMapTest, MarksAreThereAgainAfterReopening) {
  ASSERT_DONE(map_->pin(in_region(12)));
  reopen();
  EXPECT_TRUE(map_->is_marked(12));
  EXPECT_FALSE(map_->is_marked(0));
  EXPECT_EQ(map_->marked_count(), 4U);  // to the disk's end
}

TEST_F(RegionMapTest, ARegionWithPinsOrChangesStaysMarked) {
  ASSERT_DONE(map_->pin(in_region(0)));
  ASSERT_DONE(map_->pin(in_region(8)));
  map_->unpin(in_region(8));
  changed_ = {8};
  unmark_idle();
  EXPECT_TRUE(map_->is_marked(0));
  EXPECT_TRUE(map_->is_marked(8));
  EXPECT_FALSE(map_->is_marked(1));  // marked ahead and not used
  EXPECT_EQ(marks_after_power_loss(), (std::set<uint64_t>{0, 8}));
}

TEST_F(RegionMapTest, AnIdleRegionIsUnmarkedOnlyAfterAWhile) {
  ASSERT_DONE(map_->pin(kRegion0));
  map_->unpin(kRegion0);
  ASSERT_DONE(map_->unmark_some());
  EXPECT_TRUE(map_->is_marked(0));
  ASSERT_DONE(map_->unmark_some());
  EXPECT_TRUE(map_->is_marked(0));
  ASSERT_DONE(map_->unmark_some());
  EXPECT_FALSE(map_->is_marked(0));
  ASSERT_DONE(map_->pin(kRegion0));
  EXPECT_TRUE(marks_after_power_loss().contains(0));
}

// A writer that pins after the first look relied on the mark: the second look must find it.
TEST_F(RegionMapTest, APinBetweenTheTwoLooksKeepsTheMark) {
  ASSERT_DONE(map_->pin(kRegion0));
  map_->unpin(kRegion0);
  int looks = 0;
  map_->set_hooks({.prepare = nullptr, .on_failure = nullptr, .has_changes = [&](uint64_t region) {
                     if (region == 0) {
                       ++looks;
                     }
                     return region == 0 && looks > 1;  // it came between the looks
                   }});
  unmark_idle();
  EXPECT_GE(looks, 2);
  EXPECT_TRUE(map_->is_marked(0));
  EXPECT_TRUE(marks_after_power_loss().contains(0));
}

TEST_F(RegionMapTest, AMarkThatCannotBeWrittenMeansEverything) {
  for (const uint64_t step : std::initializer_list<uint64_t>{1, 2}) {
    everything_recorded_ = false;
    map_ = create();
    set_hooks();
    machine_.fail_operation(step, EIO);
    ASSERT_DONE(map_->pin(kRegion0));
    EXPECT_TRUE(everything_recorded_);
    EXPECT_TRUE(map_->is_everything());
    EXPECT_TRUE(map_->is_marked(15));
    machine_.count_from_here();
    ASSERT_DONE(map_->pin(in_region(15)));
    EXPECT_EQ(machine_.operations(), 0U);
  }
}

TEST_F(RegionMapTest, WhenNothingCanBeRecordedTheWriteFailsAndNothingIsPinned) {
  machine_.fail_operation(1, EIO);
  fail_fallback_ = true;
  EXPECT_KIND(kIo, map_->pin(kRegion0));
  EXPECT_FALSE(map_->is_everything());
  fail_fallback_ = false;
  ASSERT_DONE(map_->pin(kRegion0));
  map_->unpin(kRegion0);
}

TEST_F(RegionMapTest, WithoutMemoryForItsMapARegionIsNotMarked) {
  fail_prepare_ = true;
  EXPECT_KIND(kNoSpace, map_->pin(kRegion0));
  EXPECT_FALSE(map_->is_marked(0));
  fail_prepare_ = false;
  ASSERT_DONE(map_->pin(kRegion0));
  EXPECT_TRUE(map_->is_marked(0));
}

TEST_F(RegionMapTest, ACrashAtAnyStepNeverHasAWriteWithoutItsMark) {
  for (uint64_t seed = 0; seed < 8; ++seed) {
    bool pinned = false;
    for (uint64_t step = 1; !pinned; ++step) {
      ASSERT_LT(step, 20U);
      machine_ = MemoryDisk();
      directory_ = machine_.root();
      map_ = create();
      set_hooks();
      everything_recorded_ = false;
      fail_fallback_ = true;
      machine_.stop_at(step);
      pinned = map_->pin(in_region(7)).has_value() && !machine_.has_stopped();
      map_.reset();
      machine_.lose_power(seed);
      directory_ = machine_.root();
      auto map = RegionMap::open(*directory_, uuid_of(1), kGeometry);
      ASSERT_DONE(map);
      EXPECT_TRUE(!pinned || (*map)->is_marked(7));
    }
  }
}

TEST_F(RegionMapTest, OneThatReplacesALostOneIsAllMarked) {
  map_ = create(RegionMap::Marks::kAll);
  EXPECT_EQ(map_->marked_count(), kGeometry.regions());
  EXPECT_EQ(marks_after_power_loss().size(), kGeometry.regions());
}

// An empty one in its place for an instant would look intact to the next start.
TEST_F(RegionMapTest, ReplacingItIsAtomic) {
  for (uint64_t seed = 0; seed < 8; ++seed) {
    bool created = false;
    for (uint64_t step = 1; !created; ++step) {
      ASSERT_LT(step, 30U);
      machine_ = MemoryDisk();
      directory_ = machine_.root();
      map_ = create(RegionMap::Marks::kAll);
      machine_.stop_at(step);
      created = RegionMap::create(*directory_, uuid_of(1), kGeometry, RegionMap::Marks::kAll)
                    .has_value() &&
                !machine_.has_stopped();
      EXPECT_EQ(marks_after_power_loss(seed).size(), kGeometry.regions());
    }
  }
}

TEST_F(RegionMapTest, WhatIsNotItsFileIsRefused) {
  EXPECT_KIND(kCorrupt, RegionMap::open(*directory_, uuid_of(2), kGeometry));
  EXPECT_KIND(kCorrupt, RegionMap::open(*directory_, uuid_of(1),
                                        {kGeometry.size_bytes, 2 * kGeometry.region_bytes}));
  for (size_t byte = 0; byte < 80; ++byte) {
    machine_.content("regions")[byte] ^= std::byte{4};
    EXPECT_KIND(kCorrupt, RegionMap::open(*directory_, uuid_of(1), kGeometry));
    machine_.content("regions")[byte] ^= std::byte{4};
  }
  machine_.content("regions").pop_back();
  EXPECT_KIND(kCorrupt, RegionMap::open(*directory_, uuid_of(1), kGeometry));
  ASSERT_DONE(directory_->remove("regions"));
  EXPECT_KIND(kNotFound, RegionMap::open(*directory_, uuid_of(1), kGeometry));
}

TEST_F(RegionMapTest, GoldenFile) {
  ASSERT_DONE(map_->pin(in_region(9)));
  expect_golden("volume/regions", machine_.content("regions"));
  expect_documented("volume-format.md", "volume/regions");
  machine_.content("regions") = read_golden("volume/regions");
  reopen();
  EXPECT_EQ(map_->marked_count(), 5U);
  EXPECT_TRUE(map_->is_marked(9));
}

}  // namespace
}  // namespace ckpt::test
