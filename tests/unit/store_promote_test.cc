// SPDX-License-Identifier: Apache-2.0
// A store that becomes a primary: its image is the last checkpoint, and no session begins any more,
// whatever stops meanwhile.
#include "backupd/store/backup_image.h"
#include "tests/unit/memory_sink.h"
#include "tests/unit/store_peer.h"

namespace ckpt::test {
namespace {

const Uuid kNewTimeline = test_uuid(0x66);

// Two checkpoints, of which the last is not applied, and more that is pending.
Result<> begin_promotion_history(StorePeer& peer) {
  CKPT_TRY(peer.open());
  CKPT_TRY(peer.begin());
  CKPT_TRY(peer.ship(1, {data(0, 6), data(15, 1)}));
  CKPT_TRY(peer.checkpoint(1));
  CKPT_TRY(peer.store().finish_applying());
  CKPT_TRY(peer.ship(2, {data(3, 5), zeroes(15, 1)}));
  CKPT_TRY(peer.attach(2, "memory", 5000));
  CKPT_TRY(peer.checkpoint(2));
  CKPT_TRY(peer.ship(3, {data(0, 12)}));
  return peer.attach(3, "pending", 4000);
}

Content image_left_on(MemoryDisk& disk) {
  const auto root = disk.root();
  auto image = BackupImage::open(*root, kPeerDiskBytes);
  EXPECT_TRUE(image);
  Content content(kPeerDiskBytes);
  EXPECT_TRUE((*image)->read(0, content));
  return content;
}

void expect_refuses_sessions(StorePeer& peer) {
  EXPECT_KIND(kFenced, peer.begin());
  EXPECT_KIND(kFenced, peer.store().roll_back(peer.last->checkpoint.id, test_uuid(0x77)));
  Content block(kBlockBytes);
  EXPECT_KIND(kFenced, peer.store().read_confirmed(0, block));
  EXPECT_KIND(kFenced, peer.store().next_confirmed_data(0));
  MemorySink sink;
  EXPECT_KIND(kFenced, peer.store().export_checkpoint(std::nullopt, sink));
}

class StorePromote : public ::testing::Test {
 protected:
  MemoryDisk disk_;
  StorePeer peer_{disk_};
};

TEST_F(StorePromote, TheImageIsTheCheckpointAndSessionsAreOver) {
  ASSERT_DONE(begin_promotion_history(peer_));
  const CheckpointId before = peer_.last->checkpoint.id;
  const auto promoted = peer_.store().promote(kNewTimeline);
  ASSERT_DONE(promoted);
  EXPECT_EQ(promoted->id, (CheckpointId{kNewTimeline, before.number}));
  EXPECT_EQ(promoted->digest, peer_.last->checkpoint.digest);
  EXPECT_EQ(peer_.store().record().forks, std::vector<CheckpointId>{before});
  // Of the session that was under way too.
  EXPECT_KIND(kFenced, peer_.ship(3, {data(0, 1)}));
  EXPECT_KIND(kFenced, peer_.checkpoint(3));
  expect_refuses_sessions(peer_);
  EXPECT_EQ(peer_.store().status().pending_bytes, 0U);
  EXPECT_EQ(peer_.store().status().state, "failed");
  peer_.close();
  EXPECT_EQ(image_left_on(disk_), peer_.last->content);
  ASSERT_DONE(peer_.open());
  expect_refuses_sessions(peer_);
}

TEST_F(StorePromote, ItsAttachmentsAreStillRead) {
  ASSERT_DONE(begin_promotion_history(peer_));
  ASSERT_DONE(peer_.store().promote(kNewTimeline));
  ASSERT_DONE(peer_.open());
  PieceCopy copy;
  ASSERT_DONE(peer_.store().read_attachment({2}, "memory", copy));
  EXPECT_EQ(copy.content, attachment_content(2, "memory", 5000));
}

TEST_F(StorePromote, AgainIsTheSame) {
  ASSERT_DONE(begin_promotion_history(peer_));
  ASSERT_DONE(peer_.store().promote(kNewTimeline));
  ASSERT_DONE(peer_.open());
  const auto again = peer_.store().promote(test_uuid(0x55));
  ASSERT_DONE(again);
  EXPECT_EQ(again->id.timeline, kNewTimeline);
  EXPECT_EQ(peer_.store().record().forks.size(), 1U);
}

TEST_F(StorePromote, WithoutACheckpointThereIsNothingToPromote) {
  ASSERT_DONE(peer_.open());
  ASSERT_DONE(peer_.begin());
  ASSERT_DONE(peer_.ship(1, {data(0, 1)}));
  EXPECT_KIND(kNotFound, peer_.store().promote(kNewTimeline));
  ASSERT_DONE(peer_.checkpoint(1));  // the session goes on
}

// The power goes at one operation; what is left is the whole checkpoint, promoted or not; then
// again.
void expect_promoted_or_not(uint64_t at, uint64_t seed, uint64_t& promoted) {
  MemoryDisk disk;
  StorePeer peer(disk);
  ASSERT_DONE(begin_promotion_history(peer));
  disk.stop_at(at);
  ASSERT_FALSE(peer.store().promote(kNewTimeline));
  peer.close();
  disk.lose_power(seed < 2 ? seed : seed * 1000 + at);
  ASSERT_DONE(peer.open());
  const bool is_promoted = peer.store().checkpoints()->front().id.timeline == kNewTimeline;
  promoted += is_promoted ? 1 : 0;
  if (is_promoted) {
    EXPECT_KIND(kFenced, peer.begin());
  } else {
    ASSERT_NO_FATAL_FAILURE(peer.expect_exact());
    ASSERT_DONE(peer.begin());
  }
  ASSERT_DONE(peer.store().promote(is_promoted ? test_uuid(0x55) : kNewTimeline));
  peer.close();
  disk.lose_power(0);
  EXPECT_EQ(image_left_on(disk), peer.last->content);
  ASSERT_DONE(peer.open());
  EXPECT_EQ(peer.store().checkpoints()->front().id.timeline, kNewTimeline);
  expect_refuses_sessions(peer);
}

uint64_t operations_of_promotion() {
  MemoryDisk disk;
  StorePeer peer(disk);
  EXPECT_TRUE(begin_promotion_history(peer));
  const uint64_t before = disk.operations();
  EXPECT_TRUE(peer.store().promote(kNewTimeline));
  return disk.operations() - before;
}

TEST(StorePromoteCrash, PowerLossAtEveryOperation) {
  const uint64_t operations = operations_of_promotion();
  EXPECT_GT(operations, 10U);
  uint64_t promoted = 0;
  for (uint64_t at = 1; at <= operations; ++at) {
    for (uint64_t seed = 0; seed < 5; ++seed) {
      SCOPED_TRACE("operation " + std::to_string(at) + ", seed " + std::to_string(seed));
      ASSERT_NO_FATAL_FAILURE(expect_promoted_or_not(at, seed, promoted));
    }
  }
  EXPECT_GT(promoted, 0U);
  EXPECT_LT(promoted, operations * 5);
}

}  // namespace
}  // namespace ckpt::test
