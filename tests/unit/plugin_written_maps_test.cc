// SPDX-License-Identifier: Apache-2.0
// The written maps: what they tell after their process died, and when their memory runs out.
#include <gtest/gtest.h>

#include <filesystem>

#include "common/shared_memory.h"
#include "plugin/epochs.h"
#include "plugin/written_maps.h"
#include "tests/unit/golden_file.h"
#include "tests/unit/plugin_fakes.h"

namespace ckpt::test {
namespace {

constexpr Geometry kMapGeometry{.size_bytes = 8 * 64 * kBlockBytes,
                                .region_bytes = 64 * kBlockBytes};

class WrittenMapsTest : public testing::Test {
 protected:
  void create() {
    auto maps = WrittenMaps::create(store_, "m", uuid_of(1), kMapGeometry);
    ASSERT_DONE(maps);
    maps_ = std::move(*maps);
  }
  // The process dies; another finds what it left.
  void die_and_open() {
    maps_.reset();
    auto maps = WrittenMaps::open(store_, "m", uuid_of(1), kMapGeometry);
    ASSERT_DONE(maps);
    maps_ = std::move(*maps);
  }

  FakeMemoryStore store_;
  std::unique_ptr<WrittenMaps> maps_;
};

TEST_F(WrittenMapsTest, FactsSurviveTheProcess) {
  create();
  EXPECT_TRUE(maps_->facts().exact);
  maps_->commit_nonce(5);
  maps_->prepare_nonce(6);
  maps_->begin_write();
  maps_->begin_write();
  maps_->end_write(WallTime(700));
  maps_->set_connections(3);
  die_and_open();
  const MapsFacts facts = maps_->facts();
  EXPECT_TRUE(facts.exact);
  EXPECT_EQ(facts.nonce, 5U);
  EXPECT_EQ(facts.next_nonce, 6U);
  EXPECT_EQ(facts.writes_in_flight, 1U);
  EXPECT_EQ(facts.last_write, WallTime(700));
  EXPECT_EQ(facts.connections, 3U);
}

TEST_F(WrittenMapsTest, TheLastWriteNeverGoesBack) {
  create();
  for (const int64_t time : {500, 300, 400}) {
    maps_->begin_write();
    maps_->end_write(WallTime(time));
  }
  EXPECT_EQ(maps_->facts().last_write, WallTime(500));
  EXPECT_EQ(maps_->facts().writes_in_flight, 0U);
}

TEST_F(WrittenMapsTest, TheLastWriteFollowsAClockThatWasSetBack) {
  create();
  const WallTime start = std::chrono::hours(24 * 365);
  for (const WallTime by : {WallTime(std::chrono::seconds(1)), WallTime(std::chrono::hours(1)),
                            WallTime(std::chrono::hours(24 * 365 - 1))}) {
    for (const WallTime time : {start, start - by}) {
      maps_->begin_write();
      maps_->end_write(time);
      EXPECT_EQ(maps_->facts().last_write, time);
    }
  }
}

TEST_F(WrittenMapsTest, BitsOfBothMapsAreFoundAgain) {
  create();
  ASSERT_DONE(maps_->allocate({0, kMapGeometry.regions()}));
  {
    Epochs before(kMapGeometry, maps_->map(0), maps_->map(1));
    before.current().written.set({3, 9});
    before.cut();
    before.current().written.set({500, 512});
  }
  die_and_open();
  Epochs after(kMapGeometry, maps_->map(0), maps_->map(1));
  ASSERT_DONE(after.adopt_bits(*maps_));
  EXPECT_EQ(after.current().written.count(), 18U);
  EXPECT_TRUE(after.current().written.any({3, 4}));
  EXPECT_TRUE(after.current().written.any({511, 512}));
  after.cut();
  EXPECT_EQ(after.current().written.count(), 0U);
}

TEST_F(WrittenMapsTest, WithoutMemoryTheyAreNoLongerExact) {
  create();
  store_.full = true;
  ASSERT_DONE(maps_->allocate({2, 3}));
  EXPECT_FALSE(maps_->facts().exact);
  store_.full = false;
  die_and_open();
  EXPECT_FALSE(maps_->facts().exact);
}

TEST_F(WrittenMapsTest, OthersAreRefused) {
  create();
  maps_.reset();
  EXPECT_KIND(kNotFound, WrittenMaps::open(store_, "x", uuid_of(1), kMapGeometry));
  EXPECT_KIND(kCorrupt, WrittenMaps::open(store_, "m", uuid_of(2), kMapGeometry));
  EXPECT_KIND(kCorrupt,
              WrittenMaps::open(store_, "m", uuid_of(1),
                                {kMapGeometry.size_bytes - 1, kMapGeometry.region_bytes}));
  EXPECT_KIND(kCorrupt,
              WrittenMaps::open(store_, "m", uuid_of(1),
                                {kMapGeometry.size_bytes * 1000, kMapGeometry.region_bytes}));
  for (const size_t at : std::initializer_list<size_t>{0, 4, 8, 24, 32}) {
    store_.content("m")[at] ^= std::byte{1};
    EXPECT_KIND(kCorrupt, WrittenMaps::open(store_, "m", uuid_of(1), kMapGeometry));
    store_.content("m")[at] ^= std::byte{1};
  }
  EXPECT_TRUE(WrittenMaps::open(store_, "m", uuid_of(1), kMapGeometry));
}

TEST_F(WrittenMapsTest, GoldenHeader) {
  create();
  maps_->commit_nonce(5);
  maps_->prepare_nonce(6);
  maps_->begin_write();
  maps_->end_write(WallTime(0x123456789));
  maps_->begin_write();
  maps_->set_connections(3);
  expect_golden("volume/written-maps-header", store_.content("m").first(96));
  expect_documented("volume-format.md", "volume/written-maps-header");
}

// The kernel's memory, which says that it is full when it is told to.
class FillableMemory : public SharedMemory {
 public:
  FillableMemory(std::unique_ptr<SharedMemory> inner, const bool& full)
      : inner_(std::move(inner)), full_(full) {}
  ByteSpan bytes() override { return inner_->bytes(); }
  Result<> allocate(ByteRange range) override {
    return full_ ? Result<>(fail(ErrorKind::kNoSpace, "full")) : inner_->allocate(range);
  }
  Result<> allocate_private(ByteRange range) override { return inner_->allocate_private(range); }
  Result<std::optional<ByteRange>> next_allocated(uint64_t offset) override {
    return inner_->next_allocated(offset);
  }

 private:
  std::unique_ptr<SharedMemory> inner_;
  const bool& full_;
};

class FillableStore : public SharedMemoryStore {
 public:
  explicit FillableStore(SharedMemoryStore& inner) : inner_(inner) {}
  Result<std::unique_ptr<SharedMemory>> create(const std::string& name, uint64_t bytes) override {
    CKPT_ASSIGN(auto memory, inner_.create(name, bytes));
    return std::unique_ptr<SharedMemory>(std::make_unique<FillableMemory>(std::move(memory), full));
  }
  Result<std::unique_ptr<SharedMemory>> open(const std::string& name, uint64_t bytes) override {
    return inner_.open(name, bytes);
  }
  Result<> remove(const std::string& name) override { return inner_.remove(name); }

  bool full = false;

 private:
  SharedMemoryStore& inner_;
};

class FullTmpfsTest : public testing::Test {
 protected:
  FullTmpfsTest() {
    char pattern[] = "/dev/shm/ckpt-unit-XXXXXX";
    path_ = ::mkdtemp(pattern);
    ::setenv("XDG_RUNTIME_DIR", path_.c_str(), 1);
    tmpfs_ = std::move(*TmpfsMemoryStore::open());
  }
  ~FullTmpfsTest() override {
    ::unsetenv("XDG_RUNTIME_DIR");
    std::filesystem::remove_all(path_);
  }

  std::string path_;
  std::unique_ptr<TmpfsMemoryStore> tmpfs_;
};

// Many regions share a page of a map: a bit that was set must outlive the next region's mark.
TEST_F(FullTmpfsTest, BitsThatAreSetOutliveTheNextRegionsAllocation) {
  for (const bool full_from_the_start : {true, false}) {
    FillableStore store(*tmpfs_);
    const std::string name = full_from_the_start ? "a" : "b";
    auto maps = WrittenMaps::create(store, name, uuid_of(1), kMapGeometry);
    ASSERT_DONE(maps);
    store.full = full_from_the_start;
    ASSERT_DONE((*maps)->allocate({0, 1}));
    ChangeMap map(kMapGeometry, (*maps)->map(0));
    map.set({5, 6});
    store.full = true;
    ASSERT_DONE((*maps)->allocate({1, 2}));
    EXPECT_TRUE(map.any({5, 6})) << "full from the start: " << full_from_the_start;
  }
}

}  // namespace
}  // namespace ckpt::test
