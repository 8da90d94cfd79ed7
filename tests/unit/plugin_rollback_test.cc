// SPDX-License-Identifier: Apache-2.0
// Rollback, narrower and verifier against a store that checks and can fail.
#include <gtest/gtest.h>

#include <cerrno>

#include "plugin/narrower.h"
#include "plugin/rollback.h"
#include "plugin/verifier.h"
#include "tests/unit/plugin_fakes.h"

namespace ckpt::test {
namespace {

bool go_on(uint64_t, uint64_t) { return true; }

class StoredTest : public testing::Test {
 protected:
  // Blocks 1 to 3, 100 and the short last one are in checkpoint 1, the rest are holes.
  void SetUp() override {
    ASSERT_DONE(primary_.open_session());
    ASSERT_DONE(primary_.write({1, 4}, 5));
    ASSERT_DONE(primary_.write(100, 6));
    ASSERT_DONE(primary_.write(202, 7));
    ASSERT_DONE(primary_.checkpoint());
    kept_ = primary_.image_content();
    checkpoint_ = primary_.store.greeting.last->id;
  }
  void expect_restored() { EXPECT_TRUE(primary_.image_content() == kept_); }

  Primary primary_;
  Content kept_;
  CheckpointId checkpoint_;
};

class RollbackTest : public StoredTest {
 protected:
  Result<uint64_t> roll_back() {
    Rollback rollback(*primary_.disk, primary_.store, *primary_.record, primary_.random);
    CKPT_TRY(rollback.begin(checkpoint_, fence_));
    return rollback.run(go_on);
  }
  Result<uint64_t> go_on_with_it() {
    return Rollback(*primary_.disk, primary_.store, *primary_.record, primary_.random).run(go_on);
  }

  bool fence_ = false;
};

TEST_F(RollbackTest, TheImageIsTheCheckpointAgain) {
  ASSERT_DONE(primary_.write({2, 9}, 50));
  ASSERT_DONE(primary_.write({150, 203}, 51));
  ASSERT_DONE(primary_.path->zero({100 * kBlockBytes, kBlockBytes}, true, false));
  const auto restored = roll_back();
  ASSERT_DONE(restored);
  EXPECT_EQ(*restored, (7 + 52 + 1) * kBlockBytes + 512);
  expect_restored();
  EXPECT_EQ(primary_.disk->changed_blocks(), 0U);
}

TEST_F(RollbackTest, HolesAreHolesAgain) {
  ASSERT_DONE(primary_.write({10, 20}, 50));
  ASSERT_DONE(roll_back());
  EXPECT_EQ(**primary_.image->next_data(4 * kBlockBytes),
            (ByteRange{100 * kBlockBytes, kBlockBytes}));
}

TEST_F(RollbackTest, TheRecordHasANewTimelineThatForksThere) {
  const Uuid old_timeline = primary_.record->get().timeline;
  ASSERT_DONE(primary_.write(1, 50));
  fence_ = true;
  ASSERT_DONE(roll_back());
  const VolumeRecord record = primary_.record->get();
  EXPECT_NE(record.timeline, old_timeline);
  EXPECT_EQ(record.forks, (std::vector<CheckpointId>{checkpoint_}));
  EXPECT_EQ(record.last->id, (CheckpointId{record.timeline, checkpoint_.number}));
  EXPECT_FALSE(record.rollback);
  EXPECT_TRUE(record.fenced);
  EXPECT_EQ(primary_.store.rollbacks, (std::vector<CheckpointId>{checkpoint_}));
  const auto row = primary_.open_session();
  ASSERT_DONE(row);
  EXPECT_EQ(*row, HandshakeRow::kGoOn);
}

TEST_F(RollbackTest, WhatWasChangedStaysChangedUntilItIsRestoredAndGoesOnAfterAFailure) {
  ASSERT_DONE(primary_.write({2, 9}, 50));
  primary_.store.fail_read = Error{ErrorKind::kIo, EIO, "backup.img"};
  EXPECT_FALSE(roll_back());
  EXPECT_TRUE(primary_.record->get().rollback);
  EXPECT_EQ(primary_.disk->changed_blocks(), 7U);
  primary_.store.fail_read.reset();
  ASSERT_DONE(go_on_with_it());
  expect_restored();
  EXPECT_FALSE(primary_.record->get().rollback);
}

// Behind the address another store answers from then on.
TEST_F(RollbackTest, AStoreThatWasReplacedMeanwhileIsNoRollback) {
  ASSERT_DONE(primary_.write({2, 9}, 50));
  primary_.store.on_read = [this] { primary_.store.greeting.last->id.number = Epoch{9}; };
  const Epoch number = checkpoint_.number;
  EXPECT_KIND(kFenced, roll_back());
  EXPECT_TRUE(primary_.record->get().rollback);
  EXPECT_GT(primary_.disk->changed_blocks(), 0U);
  primary_.store.on_read = nullptr;
  primary_.store.greeting.last->id.number = number;
  ASSERT_DONE(go_on_with_it());
  expect_restored();
}

TEST_F(RollbackTest, NothingIsRestoredBeforeTheStoreHasTheFork) {
  ASSERT_DONE(primary_.write({2, 9}, 50));
  const Content changed = primary_.image_content();
  primary_.store.fail_roll_back = Error{ErrorKind::kIo, EIO, "volume"};
  EXPECT_FALSE(roll_back());
  EXPECT_TRUE(primary_.image_content() == changed);
  primary_.store.fail_roll_back.reset();
  ASSERT_DONE(go_on_with_it());
  expect_restored();
}

TEST_F(RollbackTest, AFailedSyncIsNoRollback) {
  ASSERT_DONE(primary_.write(2, 50));
  // The record's two copies, each written and synced; the block's write; the image's sync.
  primary_.machine.fail_operation(6, EIO);
  EXPECT_FALSE(roll_back());
  EXPECT_EQ(primary_.machine.operations(), 6U);
  EXPECT_TRUE(primary_.record->get().rollback);
  EXPECT_TRUE(primary_.is_changed(2));
}

// Whoever keeps the record meanwhile would put a failure that is over on it again, and the next
// start make no checkpoint.
TEST_F(RollbackTest, AFailureIsOverBeforeTheRecordSaysSo) {
  ASSERT_DONE(primary_.write(2, 50));
  primary_.disk->trouble.sync_failed("once");
  ASSERT_DONE(primary_.record->change([](VolumeRecord& record) { record.suspect = true; }));
  bool was_suspect = true;
  primary_.machine.set_watcher([&](const MemoryOperation& operation) {
    if (operation.path.starts_with("volume")) {
      was_suspect = primary_.disk->trouble.is_suspect();
    }
  });
  ASSERT_DONE(roll_back());
  primary_.machine.set_watcher(nullptr);
  EXPECT_FALSE(was_suspect);
  EXPECT_FALSE(primary_.record->get().suspect);
}

TEST_F(RollbackTest, WithoutMarksEverythingStaysOnRecord) {
  for (int call = 0; call < 3; ++call) {
    ASSERT_DONE(primary_.regions->unmark_some());
  }
  primary_.machine.fail_operation(1, EIO);
  ASSERT_DONE(primary_.write(130, 50));  // its region's mark cannot be written
  ASSERT_TRUE(primary_.record->get().everything);
  ASSERT_DONE(roll_back());
  EXPECT_TRUE(primary_.record->get().everything || !primary_.regions->is_everything());
}

TEST_F(RollbackTest, CheckpointsGoOnAfterwards) {
  ASSERT_DONE(primary_.write({2, 9}, 50));
  ASSERT_DONE(roll_back());
  ASSERT_DONE(primary_.open_session());
  ASSERT_DONE(primary_.write({4, 6}, 51));
  ASSERT_DONE(primary_.checkpoint());
  EXPECT_TRUE(primary_.store.content == primary_.image_content());
}

class NarrowerTest : public StoredTest {
 protected:
  // A start that knew only regions: everything counts as changed and unshipped.
  void forget_what_is_changed() {
    primary_.current().written.set({0, Primary::kGeometry.blocks()});
    primary_.current().unshipped.set({0, Primary::kGeometry.blocks()});
  }
  Result<> narrow() {
    narrower_.start();
    while (narrower_.is_active()) {
      CKPT_TRY(narrower_.narrow_some());
    }
    return {};
  }

  Narrower narrower_{*primary_.disk, primary_.store, 5};
};

TEST_F(NarrowerTest, OnlyBlocksThatDifferStayChanged) {
  ASSERT_DONE(primary_.write(2, 50));
  ASSERT_DONE(primary_.write(202, 51));
  forget_what_is_changed();
  ASSERT_DONE(narrow());
  EXPECT_EQ(primary_.disk->changed_blocks(), 2U);
  EXPECT_TRUE(primary_.is_changed(2));
  EXPECT_TRUE(primary_.is_changed(202));
  EXPECT_EQ(primary_.current().unshipped.count(), 2U);
}

// Nor is it over before: an offline verify begins when it is.
TEST_F(NarrowerTest, WrittenBitsAreClearedOnlyAfterASyncOfTheImage) {
  forget_what_is_changed();
  bool synced = false;
  primary_.machine.set_watcher([&](const MemoryOperation& operation) {
    EXPECT_EQ(operation.act, "sync");
    EXPECT_EQ(primary_.disk->changed_blocks(), Primary::kGeometry.blocks());
    EXPECT_TRUE(narrower_.is_active());
    synced = true;
  });
  ASSERT_DONE(narrow());
  EXPECT_TRUE(synced);
  EXPECT_EQ(primary_.disk->changed_blocks(), 0U);
  primary_.machine.set_watcher(nullptr);
}

TEST_F(NarrowerTest, AFailedSyncClearsNothing) {
  forget_what_is_changed();
  primary_.machine.fail_operation(1, EIO);
  EXPECT_FALSE(narrow());
  EXPECT_EQ(primary_.disk->changed_blocks(), Primary::kGeometry.blocks());
  EXPECT_TRUE(primary_.disk->trouble.is_suspect());
}

TEST_F(NarrowerTest, ABlockThatIsWrittenMeanwhileStaysChanged) {
  forget_what_is_changed();
  bool written = false;
  primary_.machine.set_watcher([&](const MemoryOperation& operation) {
    if (operation.act == "sync" && operation.path == "image" && !written) {
      written = true;
      ASSERT_DONE(primary_.write(2, 50));    // compared equal
      ASSERT_DONE(primary_.write(150, 51));  // in a region of holes
    }
  });
  ASSERT_DONE(narrow());
  EXPECT_TRUE(primary_.is_changed(2));
  EXPECT_TRUE(primary_.is_changed(150));
  EXPECT_TRUE(primary_.current().unshipped.any({2, 3}));
  EXPECT_FALSE(primary_.is_changed(3));
}

TEST_F(NarrowerTest, WhatIsLeftIsEnoughForTheNextCheckpoint) {
  ASSERT_DONE(primary_.write({3, 5}, 50));
  forget_what_is_changed();
  ASSERT_DONE(narrow());
  const size_t from = primary_.store.received.size();
  ASSERT_DONE(primary_.checkpoint());
  EXPECT_TRUE(primary_.store.content == primary_.image_content());
  EXPECT_EQ(primary_.store.times_received(1, from), 0U);
}

TEST_F(NarrowerTest, AnErrorOfTheStoreClearsNothing) {
  forget_what_is_changed();
  primary_.store.fail_read = Error{ErrorKind::kIo, EIO, "backup.img"};
  EXPECT_FALSE(narrow());
  EXPECT_EQ(primary_.disk->changed_blocks(), Primary::kGeometry.blocks());
}

class VerifierTest : public StoredTest {
 protected:
  Result<VerifyOutcome> verify() {
    return Verifier(*primary_.disk, primary_.store, 5).verify(go_on);
  }
  void flip(uint64_t byte) { primary_.store.content[byte] ^= std::byte{16}; }
};

TEST_F(VerifierTest, EqualSidesAreEqualInEveryByte) {
  const auto outcome = verify();
  ASSERT_DONE(outcome);
  EXPECT_EQ(outcome->checked_bytes, Primary::kGeometry.size_bytes);
  EXPECT_EQ(outcome->skipped_bytes, 0U);
  EXPECT_EQ(outcome->mismatched_bytes, 0U);
  EXPECT_TRUE(outcome->mismatches.empty());
}

TEST_F(VerifierTest, AFlippedBitIsFoundWhereverItIs) {
  // In data, in a hole, and in the short last block.
  for (const uint64_t block : std::initializer_list<uint64_t>{2, 150, 202}) {
    flip(block * kBlockBytes + 100);
    const auto outcome = verify();
    ASSERT_DONE(outcome);
    const ByteRange range = bytes_of({block, block + 1}, Primary::kGeometry.size_bytes);
    EXPECT_EQ(outcome->mismatched_bytes, range.length);
    EXPECT_EQ(outcome->mismatches, (std::vector<ByteRange>{range}));
    EXPECT_EQ(outcome->checked_bytes, Primary::kGeometry.size_bytes);
    flip(block * kBlockBytes + 100);
  }
}

TEST_F(VerifierTest, NeighboursAreOneRange) {
  flip(2 * kBlockBytes);
  flip(3 * kBlockBytes);
  const auto outcome = verify();
  ASSERT_DONE(outcome);
  EXPECT_EQ(outcome->mismatches, (std::vector<ByteRange>{{2 * kBlockBytes, 2 * kBlockBytes}}));
}

TEST_F(VerifierTest, ChangedBlocksAreSkippedAndCounted) {
  ASSERT_DONE(primary_.write({3, 6}, 50));
  ASSERT_DONE(primary_.path->zero({150 * kBlockBytes, kBlockBytes}, true, false));
  const auto outcome = verify();
  ASSERT_DONE(outcome);
  EXPECT_EQ(outcome->mismatched_bytes, 0U);
  EXPECT_EQ(outcome->skipped_bytes, 4 * kBlockBytes);
  EXPECT_EQ(outcome->checked_bytes, Primary::kGeometry.size_bytes - 4 * kBlockBytes);
}

TEST_F(VerifierTest, ABlockThatIsWrittenAndCheckpointedMeanwhileIsNoMismatch) {
  bool written = false;
  primary_.store.on_read = [&] {
    if (std::exchange(written, true)) {
      return;
    }
    ASSERT_DONE(primary_.write(2, 50));
    ASSERT_DONE(primary_.checkpoint());
  };
  const auto outcome = verify();
  ASSERT_DONE(outcome);
  EXPECT_EQ(outcome->mismatched_bytes, 0U);
}

TEST_F(VerifierTest, CanBeStopped) {
  const auto outcome =
      Verifier(*primary_.disk, primary_.store, 5).verify([](uint64_t, uint64_t) { return false; });
  EXPECT_KIND(kVoid, outcome);
}

TEST_F(VerifierTest, AnErrorIsNoMismatch) {
  primary_.store.fail_read = Error{ErrorKind::kIo, EIO, "backup.img"};
  EXPECT_KIND(kIo, verify());
}

}  // namespace
}  // namespace ckpt::test
