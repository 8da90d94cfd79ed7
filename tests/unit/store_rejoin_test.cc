// SPDX-License-Identifier: Apache-2.0
// A store whose image was a primary's: what it says of it, and that nothing touches it before there
// is a checkpoint, whatever stops meanwhile.
#include "backupd/store/backup_image.h"
#include "backupd/store/volume_file.h"
#include "common/saved_map.h"
#include "tests/unit/memory_sink.h"
#include "tests/unit/store_peer.h"

namespace ckpt::test {
namespace {

const std::vector<BlockRange> kStaleRuns{{1, 3}, {7, 8}, {15, 16}};
const CheckpointId kBase{test_uuid(0x22), {4}};
const Digest kBaseDigest{{0x44}};

// The store of an image that has some content.
void make_rejoined(MemoryDisk& disk, const std::vector<BlockRange>& runs = kStaleRuns,
                   uint64_t size_bytes = kPeerDiskBytes) {
  {
    StorePeer peer(disk, size_bytes);
    ASSERT_DONE(peer.open());
  }
  const auto root = disk.root();
  {
    const auto image = root->open("backup.img", OpenMode::kReadWrite);
    ASSERT_DONE(image);
    ASSERT_DONE((*image)->write(0, pattern(99, 10 * kBlockBytes)));
    ASSERT_DONE((*image)->sync());
  }
  const auto stale = save_map(*root, kStaleName, test_uuid(0x11), runs);
  ASSERT_DONE(stale);
  const auto file = VolumeFile::open(*root);
  ASSERT_DONE(file);
  ASSERT_DONE((*file)->update([&](StoreRecord& record) {
    record.rejoined = {*stale, {{kBase, kBaseDigest}}};
  }));
}

class StoreRejoin : public ::testing::Test {
 protected:
  void SetUp() override { ASSERT_NO_FATAL_FAILURE(make_rejoined(disk_)); }
  Content image() { return disk_.content("backup.img"); }

  MemoryDisk disk_;
  StorePeer peer_{disk_};
};

TEST_F(StoreRejoin, SaysOfWhichCheckpointItIsAndWhatDiffers) {
  ASSERT_DONE(peer_.open());
  const auto greeting = peer_.store().begin_session();
  ASSERT_DONE(greeting);
  EXPECT_FALSE(greeting->last);
  EXPECT_TRUE(greeting->is_begun);
  EXPECT_EQ(greeting->bases, (std::vector<BaseCheckpoint>{{kBase, kBaseDigest}}));
  EXPECT_EQ(*peer_.store().stale(0), kStaleRuns);
  EXPECT_EQ(*peer_.store().stale(2), (std::vector<BlockRange>{{2, 3}, {7, 8}, {15, 16}}));
  EXPECT_EQ(*peer_.store().stale(8), (std::vector<BlockRange>{{15, 16}}));
  EXPECT_TRUE(peer_.store().stale(16)->empty());
}

TEST_F(StoreRejoin, IsNoCheckpoint) {
  ASSERT_DONE(peer_.open());
  EXPECT_TRUE(peer_.store().checkpoints()->empty());
  MemorySink sink;
  EXPECT_KIND(kNotFound, peer_.store().export_checkpoint(std::nullopt, sink));
  EXPECT_KIND(kNotFound, peer_.store().promote(test_uuid(0x66)));
  EXPECT_KIND(kNotFound, peer_.store().roll_back(kBase, test_uuid(0x33)));
}

TEST_F(StoreRejoin, WhatIsPendingIsDroppedAndTheImageStays) {
  const Content before = image();
  ASSERT_DONE(peer_.open());
  ASSERT_DONE(peer_.begin());
  ASSERT_DONE(peer_.ship(5, {data(0, 4), zeroes(7, 2)}));
  ASSERT_DONE(peer_.begin());
  EXPECT_EQ(image(), before);
  ASSERT_DONE(peer_.ship(5, {data(0, 4)}));
  ASSERT_DONE(peer_.store().free_reserve());  // the primary on the same file system needs it
  EXPECT_EQ(image(), before);
  ASSERT_DONE(peer_.open());
  ASSERT_DONE(peer_.begin());
  EXPECT_EQ(image(), before);
  EXPECT_EQ(peer_.store().stale(0)->size(), 3U);
}

TEST_F(StoreRejoin, TheFirstCheckpointEndsIt) {
  ASSERT_DONE(peer_.open());
  ASSERT_DONE(peer_.begin());
  ASSERT_DONE(peer_.ship(5, {data(1, 2), zeroes(7, 1), data(15, 1)}));
  ASSERT_DONE(peer_.checkpoint(5));
  peer_.expect_exact();
  EXPECT_TRUE(peer_.store().stale(0)->empty());
  EXPECT_FALSE(disk_.snapshot().contains("stale"));
  ASSERT_DONE(peer_.open());
  const auto greeting = peer_.store().begin_session();
  ASSERT_DONE(greeting);
  EXPECT_TRUE(greeting->bases.empty());
  EXPECT_FALSE(greeting->is_begun);
  peer_.expect_exact();
}

TEST_F(StoreRejoin, WithoutItsMapItIsRefusedUnlessNothingIsToBeKnown) {
  disk_.damage("stale", [](std::vector<std::byte>& bytes) { bytes[70] ^= std::byte{1}; });
  const auto before = disk_.snapshot();
  const auto opened = peer_.open();
  EXPECT_KIND(kCorrupt, opened);
  EXPECT_NE(opened.error().message().find("rejoin --discard"), std::string::npos);
  EXPECT_EQ(disk_.snapshot(), before);
  const auto root = disk_.root();
  ASSERT_DONE((*VolumeFile::open(*root))->update([](StoreRecord& record) {
    record.rejoined->bases.clear();
  }));
  ASSERT_DONE(peer_.open());
  const auto greeting = peer_.store().begin_session();
  ASSERT_DONE(greeting);
  EXPECT_TRUE(greeting->is_begun);
  EXPECT_TRUE(greeting->bases.empty());
}

TEST_F(StoreRejoin, OneWhoseImageHasTheStateOfAPrimaryIsNotDone) {
  const auto root = disk_.root();
  const auto state = root->subdirectory("backup.img.ckpt", true);
  ASSERT_DONE(state);
  ASSERT_DONE(peer_.open());  // an empty folder is none
  ASSERT_DONE((*state)->open("volume", OpenMode::kCreate));
  const auto opened = peer_.open();
  EXPECT_KIND(kInvalid, opened);
  EXPECT_NE(opened.error().message().find("repeat ckpt-tool rejoin"), std::string::npos);
}

TEST(StoreRejoinPages, OfSoManyRunsAtMost) {
  constexpr uint64_t kRuns = kStaleMax + 5;
  std::vector<BlockRange> runs;
  for (uint64_t i = 0; i < kRuns; ++i) {
    runs.push_back({2 * i, 2 * i + 1});
  }
  MemoryDisk disk;
  constexpr uint64_t kSizeBytes = 2 * kRuns * kBlockBytes;
  ASSERT_NO_FATAL_FAILURE(make_rejoined(disk, runs, kSizeBytes));
  StorePeer peer(disk, kSizeBytes);
  ASSERT_DONE(peer.open());
  const auto first = peer.store().stale(0);
  ASSERT_DONE(first);
  EXPECT_EQ(first->size(), kStaleMax);
  EXPECT_EQ(peer.store().stale(first->back().end)->size(), 5U);
}

// Up to its first checkpoint.
Result<> begin_rejoin_history(StorePeer& peer) {
  CKPT_TRY(peer.open());
  CKPT_TRY(peer.begin());
  CKPT_TRY(peer.ship(5, {data(1, 2), zeroes(7, 1), data(15, 1)}));
  CKPT_TRY(peer.checkpoint(5));
  return peer.store().finish_applying();
}

// The power goes at one operation: what is left is the image as it came, and what is known of it,
// or the checkpoint; then again.
void expect_image_or_checkpoint(uint64_t at, uint64_t seed, uint64_t& kept) {
  MemoryDisk disk;
  ASSERT_NO_FATAL_FAILURE(make_rejoined(disk));
  const Content before = disk.content("backup.img");
  StorePeer peer(disk);
  disk.stop_at(at);
  ASSERT_FALSE(begin_rejoin_history(peer));
  peer.close();
  disk.lose_power(seed < 2 ? seed : seed * 1000 + at);
  ASSERT_DONE(peer.open());
  if (peer.store().checkpoints()->empty()) {
    ++kept;
    EXPECT_EQ(disk.content("backup.img"), before);
    EXPECT_EQ(*peer.store().stale(0), kStaleRuns);
    peer.in_flight.reset();
    ASSERT_DONE(begin_rejoin_history(peer));
  }
  ASSERT_NO_FATAL_FAILURE(peer.expect_exact());
}

TEST(StoreRejoinCrash, PowerLossAtEveryOperation) {
  uint64_t operations = 0;
  {
    MemoryDisk disk;
    ASSERT_NO_FATAL_FAILURE(make_rejoined(disk));
    StorePeer peer(disk);
    const uint64_t before = disk.operations();
    ASSERT_DONE(begin_rejoin_history(peer));
    operations = disk.operations() - before;
  }
  EXPECT_GT(operations, 15U);
  uint64_t kept = 0;
  for (uint64_t at = 1; at <= operations; ++at) {
    for (uint64_t seed = 0; seed < 5; ++seed) {
      SCOPED_TRACE("operation " + std::to_string(at) + ", seed " + std::to_string(seed));
      ASSERT_NO_FATAL_FAILURE(expect_image_or_checkpoint(at, seed, kept));
    }
  }
  EXPECT_GT(kept, 10U);
  EXPECT_LT(kept, operations * 5);
}

}  // namespace
}  // namespace ckpt::test
