// SPDX-License-Identifier: Apache-2.0
// Long random histories: whatever is confirmed, dropped, applied, reopened or rolled back, the
// store holds the last checkpoint, and order of I/O is as the format page says.
#include <random>

#include "tests/unit/store_peer.h"

namespace ckpt::test {
namespace {

std::vector<Extent> random_extents(std::mt19937_64& random) {
  std::vector<Extent> extents;
  for (uint64_t block = random() % 4; block < 16; block += 1 + random() % 4) {
    const uint64_t count = std::min<uint64_t>(16 - block, 1 + random() % 5);
    extents.push_back(random() % 3 == 0 ? zeroes(block, count) : data(block, count));
    block += count;
  }
  if (extents.empty()) {
    extents.push_back(data(15, 1));
  }
  return extents;
}

// One step of a history; next is the number of the epoch that is open.
void random_step(std::mt19937_64& random, StorePeer& peer, uint64_t& next) {
  switch (random() % 12) {
    case 0: ASSERT_DONE(peer.begin()); break;
    case 1:
      ASSERT_DONE(peer.open());
      peer.expect_exact();
      ASSERT_DONE(peer.begin());
      break;
    case 2: ++next; break;  // a void epoch
    case 3:
    case 4:
      ASSERT_DONE(peer.checkpoint(next));
      ++next;
      break;
    case 5: peer.expect_exact(); break;
    case 6:
      if (peer.last && random() % 4 == 0) {
        const auto timeline = static_cast<uint8_t>(peer.timeline.bytes[0] + 1);
        ASSERT_DONE(peer.roll_back(test_uuid(timeline)));
      }
      break;
    case 7:
    case 8: ASSERT_DONE(peer.store().apply_some()); break;
    default:
      peer.compression.codec = random() % 2 == 0 ? Codec::kNone : Codec::kZstd;
      // Now and then a block of the epoch after this one comes early.
      ASSERT_DONE(peer.ship(next + (random() % 4 == 0 ? 1 : 0), random_extents(random)));
  }
}

TEST(StoreApply, RandomHistoriesAreExact) {
  for (uint64_t seed = 1; seed <= 60; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    std::mt19937_64 random(seed);
    MemoryDisk disk;
    StorePeer peer(disk);
    ASSERT_DONE(peer.open());
    ASSERT_DONE(peer.begin());
    uint64_t next = 1;
    for (int step = 0; step < 120; ++step) {
      ASSERT_NO_FATAL_FAILURE(random_step(random, peer, next)) << "step " << step;
    }
    peer.expect_exact();
  }
}

// Scattered blocks of a disk of 4 MiB, shipped one by one.
class AheadTest : public testing::Test {
 protected:
  static constexpr uint64_t kDiskBytes = uint64_t{4} << 20U;

  void start() {
    disk_.set_watcher([this](const MemoryOperation& operation) {
      if (operation.act == "allocate" && operation.path.ends_with("backup.img")) {
        allocated_.push_back(operation.range);
      }
    });
    ASSERT_DONE(peer_.open());
    ASSERT_DONE(peer_.begin());
  }
  // Every fourth block of a mebibyte, from one on.
  void ship(uint64_t mebibyte, uint64_t from, uint64_t count) {
    for (uint64_t i = from; i < from + count; ++i) {
      ASSERT_DONE(peer_.ship(1, {data(mebibyte * 256 + i * 4, 1, kDiskBytes)}));
    }
  }

  MemoryDisk disk_;
  StorePeer peer_{disk_, kDiskBytes};
  std::vector<ByteRange> allocated_;
};

TEST_F(AheadTest, SpaceIsTakenAheadWhereAnEighthIsTaken) {
  start();
  ship(1, 0, 31);
  EXPECT_EQ(allocated_.size(), 31U);
  ship(1, 31, 33);
  ASSERT_EQ(allocated_.size(), 32U);
  EXPECT_EQ(allocated_.back(), (ByteRange{uint64_t{1} << 20U, uint64_t{1} << 20U}));
  ASSERT_DONE(peer_.checkpoint(1));
  peer_.expect_exact();
  ASSERT_DONE(peer_.open());
  peer_.expect_exact();
}

// A large batch tells it all at once.
TEST_F(AheadTest, SpaceIsTakenAheadWhereAnEighthIsComing) {
  start();
  std::vector<Extent> extents;
  for (uint64_t i = 0; i < 32; ++i) {
    extents.push_back(data(256 + i * 4, 1, kDiskBytes));
  }
  extents.push_back(data(512, 1, kDiskBytes));
  ASSERT_DONE(peer_.ship(1, extents));
  const ByteRange ahead{uint64_t{1} << 20U, uint64_t{1} << 20U};
  EXPECT_EQ(allocated_, (std::vector<ByteRange>{ahead, {uint64_t{2} << 20U, kBlockBytes}}));
  ASSERT_DONE(peer_.checkpoint(1));
  peer_.expect_exact();
}

TEST_F(AheadTest, NotWhereSpaceIsNotAmple) {
  disk_.set_capacity(3U << 20U);
  start();
  ship(1, 0, 64);
  EXPECT_EQ(allocated_.size(), 64U);
}

TEST_F(AheadTest, WhatWasTakenAheadIsGivenBackWhenSpaceRunsOut) {
  start();
  ship(1, 0, 33);
  disk_.set_capacity(disk_.used_bytes() + kBlockBytes);
  ship(2, 0, 40);  // more than there is, without what was taken ahead
  ASSERT_DONE(peer_.checkpoint(1));
  peer_.expect_exact();
  ASSERT_DONE(peer_.open());
  peer_.expect_exact();
}

TEST_F(AheadTest, AnEarlierLifesIsGivenBackToo) {
  start();
  ship(1, 0, 31);
  ASSERT_DONE(peer_.checkpoint(1));
  ASSERT_DONE(peer_.store().finish_applying());
  const uint64_t before = disk_.used_bytes();
  ASSERT_DONE(peer_.ship(2, {data(256 + 31 * 4, 1, kDiskBytes)}));
  ASSERT_DONE(peer_.ship(2, {data(256 + 32 * 4, 1, kDiskBytes)}));
  ASSERT_DONE(peer_.checkpoint(2));
  ASSERT_DONE(peer_.store().finish_applying());
  EXPECT_GT(disk_.used_bytes(), before + (uint64_t{1} << 19U));
  ASSERT_DONE(peer_.open());
  ASSERT_DONE(peer_.begin());
  disk_.set_capacity(disk_.used_bytes());
  EXPECT_KIND(kNoSpace, peer_.ship(3, {data(0, 64, kDiskBytes)}));
  EXPECT_LE(disk_.used_bytes(), before + 2 * kBlockBytes);
  peer_.expect_exact();
  ASSERT_DONE(peer_.begin());
  ASSERT_DONE(peer_.ship(3, {data(0, 64, kDiskBytes)}));
  ASSERT_DONE(peer_.checkpoint(3));
  peer_.expect_exact();
}

// The first batch's data must be written before the second's zeroes, however little space there is.
TEST_F(AheadTest, SpaceThatAConfirmedBatchNeedsIsNotGivenBack) {
  start();
  ASSERT_DONE(peer_.ship(1, {data(300, 8, kDiskBytes)}));
  ASSERT_DONE(peer_.ship(1, {zeroes(300, 8, kDiskBytes)}));
  ASSERT_DONE(peer_.checkpoint(1));
  disk_.set_capacity(disk_.used_bytes());
  EXPECT_KIND(kNoSpace, peer_.ship(2, {data(600, 64, kDiskBytes)}));
  disk_.set_capacity(disk_.used_bytes());
  ASSERT_DONE(peer_.store().finish_applying());
  peer_.expect_exact();
}

// What an earlier life reserved is a hole to the file system until it is written.
TEST_F(AheadTest, SpaceThatABatchOfAnEarlierLifeNeedsIsNotGivenBack) {
  start();
  ASSERT_DONE(peer_.ship(1, {data(300, 8, kDiskBytes)}));
  ASSERT_DONE(peer_.checkpoint(1));
  ASSERT_DONE(peer_.open());
  ASSERT_DONE(peer_.begin());
  disk_.set_capacity(disk_.used_bytes());
  EXPECT_KIND(kNoSpace, peer_.ship(2, {data(600, 64, kDiskBytes)}));
  disk_.set_capacity(disk_.used_bytes());
  ASSERT_DONE(peer_.store().finish_applying());
  peer_.expect_exact();
}

// Batches here and there, and a disk that is now and then too small for them.
TEST(StoreApply, RandomHistoriesWithLittleSpaceAreExact) {
  constexpr uint64_t kBytes = uint64_t{4} << 20U;
  uint64_t failures = 0;
  for (uint64_t seed = 1; seed <= 10; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    std::mt19937_64 random(seed);
    MemoryDisk disk;
    StorePeer peer(disk, kBytes);
    ASSERT_DONE(peer.open());
    ASSERT_DONE(peer.begin());
    uint64_t next = 1;
    for (int step = 0; step < 150; ++step) {
      const uint64_t first = random() % 1000;
      const uint64_t count = 1 + random() % (random() % 8 == 0 ? 20 : 3);
      const Extent extent =
          random() % 5 == 0 ? zeroes(first, count, kBytes) : data(first, count, kBytes);
      Result<> outcome = random() % 12 == 0 ? peer.checkpoint(next++) : peer.ship(next, {extent});
      if (random() % 9 == 0) {
        const auto applied = peer.store().apply_some();
        outcome = applied ? outcome : Result<>(Unexpected(applied.error()));
      }
      if (!outcome) {
        ASSERT_EQ(outcome.error().kind, ErrorKind::kNoSpace) << outcome.error().message();
        ++failures;
        disk.set_capacity(std::nullopt);
        peer.expect_exact();
        ASSERT_DONE(random() % 4 == 0 ? peer.open() : Result<>());
        ASSERT_DONE(peer.begin());
        ++next;
      } else if (random() % 20 == 0) {
        disk.set_capacity(disk.used_bytes() + random() % 40 * kBlockBytes);
      }
    }
    disk.set_capacity(std::nullopt);
    peer.expect_exact();
  }
  EXPECT_GT(failures, 10U);
}

TEST(StoreApply, HolesStayHoles) {
  MemoryDisk disk;
  StorePeer peer(disk);
  ASSERT_DONE(peer.open());
  ASSERT_DONE(peer.begin());
  ASSERT_DONE(peer.ship(1, {data(0, 16)}));
  ASSERT_DONE(peer.checkpoint(1));
  ASSERT_DONE(peer.ship(2, {zeroes(2, 4), zeroes(12, 4)}));
  ASSERT_DONE(peer.checkpoint(2));
  peer.expect_exact();
  EXPECT_EQ(*peer.store().next_confirmed_data(0), (ByteRange{0, 2 * kBlockBytes}));
  EXPECT_EQ(*peer.store().next_confirmed_data(2 * kBlockBytes),
            (ByteRange{6 * kBlockBytes, 6 * kBlockBytes}));
  // The short last block too.
  EXPECT_EQ(*peer.store().next_confirmed_data(12 * kBlockBytes), std::nullopt);
}

TEST(StoreApply, ReadsStayInsideTheDisk) {
  MemoryDisk disk;
  StorePeer peer(disk);
  ASSERT_DONE(peer.open());
  ASSERT_DONE(peer.begin());
  ASSERT_DONE(peer.checkpoint(1));
  Content buffer(512);
  ASSERT_DONE(peer.store().read_confirmed(kPeerDiskBytes - 512, buffer));
  EXPECT_KIND(kInvalid, peer.store().read_confirmed(kPeerDiskBytes - 511, buffer));
  EXPECT_KIND(kInvalid, peer.store().read_confirmed(UINT64_MAX, buffer));
}

// The acts of a checkpoint and its application, without reads and allocations.
std::vector<std::string> acts_of_a_checkpoint() {
  MemoryDisk disk;
  StorePeer peer(disk);
  std::vector<std::string> acts;
  EXPECT_TRUE(peer.open());
  EXPECT_TRUE(peer.open());  // again: now `volume` has its name from the start
  EXPECT_TRUE(peer.begin());
  EXPECT_TRUE(peer.ship(1, {data(0, 1)}));
  disk.set_watcher([&acts](const MemoryOperation& operation) {
    if (operation.act != "allocate") {
      acts.push_back(operation.act + " " + operation.path);
    }
  });
  EXPECT_TRUE(peer.checkpoint(1));
  EXPECT_TRUE(peer.store().finish_applying());
  return acts;
}

TEST(StoreApply, OrderOfWritesAndSyncs) {
  const std::vector<std::string> expected{
      "write journal/00000000000000000001",  // the confirm record
      "sync journal/00000000000000000001", "sync directory journal", "write volume", "sync volume",
      "write volume", "sync volume",
      // Here it is answered.
      "write backup.img", "sync backup.img", "write volume", "sync volume", "write volume",
      "sync volume", "remove journal/00000000000000000001", "sync directory journal"};
  EXPECT_EQ(acts_of_a_checkpoint(), expected);
}

// A pass that has only to sync waits for as long as its caller likes.
class OpenPassTest : public ::testing::Test {
 protected:
  OpenPassTest() : peer_(disk_) {}
  void SetUp() override {
    ASSERT_DONE(peer_.open());
    ASSERT_DONE(peer_.begin());
    disk_.set_watcher([this](const MemoryOperation& operation) {
      syncs_ += operation.act == "sync" && operation.path == "backup.img" ? 1 : 0;
    });
  }
  void checkpoint(uint64_t number) {
    ASSERT_DONE(peer_.ship(number, {data(number, 2)}));
    ASSERT_DONE(peer_.checkpoint(number));
  }
  void apply() {
    for (int step = 0; step < 100 && !peer_.store().has_only_to_sync(); ++step) {
      ASSERT_DONE(peer_.store().apply_some());
    }
    ASSERT_TRUE(peer_.store().has_only_to_sync());
  }

  MemoryDisk disk_;
  StorePeer peer_;
  int syncs_ = 0;
  Content buffer_ = Content(kBlockBytes);
};

TEST_F(OpenPassTest, WhatIsConfirmedMeanwhileJoinsIt) {
  checkpoint(1);
  apply();
  checkpoint(2);
  EXPECT_FALSE(peer_.store().has_only_to_sync());
  apply();
  EXPECT_EQ(syncs_, 0);
  EXPECT_EQ(peer_.store().status().applied, Epoch{});
  EXPECT_EQ(*peer_.store().apply_some(), false);
  EXPECT_EQ(syncs_, 1);
  EXPECT_EQ(peer_.store().status().applied, Epoch{2});
  EXPECT_FALSE(peer_.store().has_work());
  EXPECT_FALSE(peer_.store().has_only_to_sync());
  peer_.expect_exact();
}

TEST_F(OpenPassTest, AnEmptyCheckpointJoinsItToo) {
  checkpoint(1);
  apply();
  ASSERT_DONE(peer_.checkpoint(2));
  apply();
  EXPECT_EQ(syncs_, 0);
  EXPECT_EQ(*peer_.store().apply_some(), false);
  EXPECT_EQ(syncs_, 1);
  EXPECT_EQ(peer_.store().status().applied, Epoch{2});
}

TEST_F(OpenPassTest, ReadersDoNotWaitForItsSync) {
  checkpoint(1);
  peer_.expect_exact();
  EXPECT_TRUE(peer_.store().has_only_to_sync());
  EXPECT_EQ(syncs_, 0);
}

TEST_F(OpenPassTest, IsDoneAgainAfterPowerLoss) {
  for (uint64_t number = 1; number <= 3; ++number) {
    checkpoint(number);
    apply();
  }
  peer_.close();
  disk_.lose_power(7);
  ASSERT_DONE(peer_.open());
  EXPECT_EQ(peer_.store().status().applied, Epoch{});
  peer_.expect_exact();
}

TEST_F(OpenPassTest, MayNotWaitWhereTheStoreFills) {
  peer_.unapplied_bytes_max = 8 * kBlockBytes;
  ASSERT_DONE(peer_.open());
  ASSERT_DONE(peer_.begin());
  checkpoint(1);
  apply();
  EXPECT_TRUE(peer_.store().may_sync_later());
  checkpoint(2);
  checkpoint(3);
  apply();
  EXPECT_FALSE(peer_.store().may_sync_later());
  EXPECT_EQ(*peer_.store().apply_some(), false);
  checkpoint(4);
  apply();
  EXPECT_TRUE(peer_.store().may_sync_later());
}

TEST_F(OpenPassTest, MayNotWaitWhereManyCheckpointsWait) {
  for (uint64_t number = 1; number <= kUnappliedCheckpointsMax / 2; ++number) {
    ASSERT_DONE(peer_.checkpoint(number));
  }
  ASSERT_DONE(peer_.store().read_confirmed(0, ByteSpan(buffer_)));
  EXPECT_TRUE(peer_.store().may_sync_later());
  ASSERT_DONE(peer_.checkpoint(kUnappliedCheckpointsMax));
  ASSERT_DONE(peer_.store().read_confirmed(0, ByteSpan(buffer_)));
  EXPECT_FALSE(peer_.store().may_sync_later());
}

TEST_F(OpenPassTest, MayNotWaitWhereThePrimaryNeedsTheSpace) {
  checkpoint(1);
  apply();
  EXPECT_TRUE(peer_.store().may_sync_later());
  ASSERT_DONE(peer_.store().free_reserve());
  EXPECT_TRUE(peer_.store().has_only_to_sync());
  EXPECT_FALSE(peer_.store().may_sync_later());
}

TEST_F(OpenPassTest, MayNotWaitWhereSpaceRunsOut) {
  checkpoint(1);
  apply();
  EXPECT_TRUE(peer_.store().may_sync_later());
  disk_.set_capacity(disk_.used_bytes() + 6 * kBlockBytes);
  EXPECT_KIND(kNoSpace, peer_.ship(2, {data(8, 4)}));
  EXPECT_FALSE(peer_.store().may_sync_later());
  EXPECT_EQ(*peer_.store().apply_some(), false);
  EXPECT_EQ(syncs_, 1);
  EXPECT_FALSE(peer_.store().has_work());
  ASSERT_DONE(peer_.begin());
  ASSERT_DONE(peer_.ship(2, {data(8, 4)}));  // into what the journal of checkpoint 1 took
  ASSERT_DONE(peer_.checkpoint(2));
  peer_.expect_exact();
}

}  // namespace
}  // namespace ckpt::test
