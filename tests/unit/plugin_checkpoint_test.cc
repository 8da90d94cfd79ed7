// SPDX-License-Identifier: Apache-2.0
// Shipper, session and checkpoint maker together, stepped against a store that checks and can fail.
#include <gtest/gtest.h>

#include <cerrno>
#include <random>

#include "plugin/checkpoint.h"
#include "tests/unit/plugin_fakes.h"

namespace ckpt::test {
namespace {

using std::chrono::milliseconds;

class CheckpointTest : public MakerTest {};

TEST_F(CheckpointTest, TheStoreHoldsTheDiskAsItWas) {
  ASSERT_DONE(primary_.start());
  ASSERT_DONE(primary_.write({1, 40}, 5));
  ASSERT_DONE(primary_.write(202, 6));  // the short last block
  const auto outcome = primary_.checkpoint({.name = "n", .message = "m"});
  ASSERT_DONE(outcome);
  EXPECT_EQ(outcome->checkpoint.id.number, Epoch{2});
  EXPECT_EQ(outcome->checkpoint.name, "n");
  EXPECT_EQ(outcome->checkpoint.message, "m");
  EXPECT_EQ(outcome->checkpoint.changed_bytes, 40 * kBlockBytes);
  EXPECT_EQ(outcome->checkpoint.parent.number, Epoch{1});
  expect_store_has(primary_.image_content());
  EXPECT_EQ(primary_.disk->changed_blocks(), 0U);
}

TEST_F(CheckpointTest, HowLongItHasBeenShippedCountsFromItsCut) {
  ASSERT_DONE(primary_.start());
  ASSERT_DONE(primary_.write(1, 5));
  primary_.clock.pass(milliseconds(7));
  EXPECT_EQ(primary_.maker->shipping_for(), milliseconds(0));
  Caller caller(primary_);
  cut(caller);
  primary_.clock.pass(milliseconds(30));
  EXPECT_EQ(primary_.maker->shipping_for(), milliseconds(30));
  EXPECT_TRUE(primary_.maker->is_making());
  primary_.run();
  ASSERT_DONE(caller.outcome());
  EXPECT_EQ(primary_.maker->shipping_for(), milliseconds(0));
}

// Numbers go on, and what rests or is due goes by the clock that never goes back.
TEST_F(CheckpointTest, AWallClockThatIsSetBackIsOnlyShown) {
  constexpr std::chrono::hours kYear{24 * 365};
  primary_.clock.pass(2 * kYear);
  ASSERT_DONE(primary_.start());
  Epoch number{1};
  for (const std::chrono::hours by : {std::chrono::hours(0), std::chrono::hours(1), kYear}) {
    primary_.clock.set_back(by);
    EXPECT_GE(primary_.disk->since_write(), milliseconds(0));
    ASSERT_DONE(primary_.write(1, number.value + 5));
    primary_.clock.pass(milliseconds(5));
    EXPECT_EQ(primary_.disk->since_write(), milliseconds(5));
    const auto outcome = primary_.checkpoint();
    ASSERT_DONE(outcome);
    EXPECT_EQ(outcome->checkpoint.time, primary_.clock.wall());
    EXPECT_EQ(outcome->checkpoint.parent.number, number);
    EXPECT_EQ(outcome->checkpoint.id.number.value, number.value + 1);
    number = outcome->checkpoint.id.number;
    expect_store_has(primary_.image_content());
    EXPECT_EQ(primary_.maker->shipping_for(), milliseconds(0));
  }
  primary_.clock.set_back(std::chrono::hours(1));
  EXPECT_GE(primary_.disk->since_write(), kYear);  // nobody has written since
}

TEST_F(CheckpointTest, TheFirstCopySendsWhatIsAllocated) {
  ASSERT_DONE(primary_.image->write(5 * kBlockBytes, block_of(9)));
  const auto row = primary_.open_session();
  ASSERT_DONE(row);
  EXPECT_EQ(*row, HandshakeRow::kFirstCopy);
  ASSERT_DONE(primary_.checkpoint());
  expect_store_has(primary_.image_content());
  EXPECT_EQ(primary_.store.times_received(5), 1U);
  EXPECT_EQ(primary_.store.times_received(6), 0U);
}

TEST_F(CheckpointTest, WritesAfterTheCutAreNotInIt) {
  ASSERT_DONE(primary_.start());
  ASSERT_DONE(primary_.write({1, 4}, 5));
  Caller caller(primary_);
  cut(caller);
  const Content at_cut = primary_.image_content();
  ASSERT_DONE(primary_.write({2, 6}, 6));
  primary_.run();
  ASSERT_DONE(caller.outcome());
  expect_store_has(at_cut);
  EXPECT_EQ(primary_.disk->preserved.blocks_total(), 2U);
  ASSERT_DONE(primary_.checkpoint());
  expect_store_has(primary_.image_content());
}

// The image is not synced meanwhile: what both epochs wrote counts as changed until it is.
TEST_F(CheckpointTest, TheNextCheckpointDoesNotWaitForASyncThatRests) {
  ASSERT_DONE(primary_.start());
  ASSERT_DONE(primary_.write({1, 4}, 5));
  Caller first(primary_);
  primary_.maker->set_sync_rests(true);
  for (int step = 0; step < 20 && !first.is_answered(); ++step) {
    primary_.maker->step();
  }
  ASSERT_DONE(first.outcome());
  EXPECT_EQ(first.outcome()->checkpoint.changed_bytes, 3 * kBlockBytes);
  ASSERT_TRUE(primary_.maker->waits_for_sync());
  EXPECT_FALSE(primary_.maker->is_making());
  primary_.clock.pass(milliseconds(30));
  EXPECT_EQ(primary_.maker->shipping_for(), milliseconds(0));
  EXPECT_EQ(primary_.disk->changed_blocks(), 3U);
  ASSERT_DONE(primary_.write(9, 6));
  Caller second(primary_);
  for (int step = 0; step < 20 && !second.is_answered(); ++step) {
    primary_.maker->step();
  }
  ASSERT_DONE(second.outcome());
  EXPECT_EQ(second.outcome()->checkpoint.changed_bytes, kBlockBytes);
  expect_store_has(primary_.image_content());
  EXPECT_EQ(primary_.disk->changed_blocks(), 4U);
  primary_.maker->set_sync_rests(false);
  primary_.run();
  EXPECT_EQ(primary_.disk->changed_blocks(), 0U);
}

// Writes before, between and inside all steps, also while a batch is on its way.
TEST_F(CheckpointTest, EveryCheckpointIsTheDiskAtItsCutUnderRandomWrites) {
  ASSERT_DONE(primary_.start());
  std::mt19937_64 random(7);
  const auto write_some = [&] {
    for (uint64_t n = random() % 4; n > 0; --n) {
      const uint64_t first = random() % 200;
      ASSERT_DONE(primary_.write({first, first + 1 + random() % 3}, random() % 50));
    }
  };
  primary_.store.on_receive = write_some;
  for (int round = 0; round < 40; ++round) {
    write_some();
    ASSERT_DONE(primary_.shipper->ship_ahead());
    write_some();
    Caller caller(primary_);
    cut(caller);
    const Content at_cut = primary_.image_content();
    for (int step = 0; step < 200 && !caller.is_answered(); ++step) {
      write_some();
      primary_.maker->step();
    }
    ASSERT_DONE(caller.outcome());
    expect_store_has(at_cut);
    primary_.run();
  }
}

TEST_F(CheckpointTest, AFewPreservedCopiesWaitUntilNothingElseIsLeft) {
  ASSERT_DONE(primary_.start());
  ASSERT_DONE(primary_.write({1, 3}, 5));
  Caller caller(primary_);
  cut(caller);
  ASSERT_DONE(primary_.write(1, 6));
  const size_t before = primary_.store.received.size();
  primary_.run();
  ASSERT_DONE(caller.outcome());
  ASSERT_GE(primary_.store.received.size(), before + 2);
  const Batch& last = primary_.store.received[before + 1];
  EXPECT_EQ(last.extents, (std::vector<Extent>{{kBlockBytes, kBlockBytes}}));
  EXPECT_TRUE(last.data == block_of(5));
  EXPECT_EQ(last.header.epoch, Epoch{2});
}

TEST_F(CheckpointTest, PreservedCopiesThatFillABatchAreSentFirst) {
  constexpr uint64_t kBlocks = 4;
  Primary primary({.batch_bytes = kBlocks * kBlockBytes, .compression = {}});
  ASSERT_DONE(primary.start());
  ASSERT_DONE(primary.write({1, 40}, 5));
  Caller caller(primary);
  ASSERT_TRUE(primary.maker->step());
  ASSERT_DONE(primary.write({20, 20 + kBlocks}, 6));
  const size_t before = primary.store.received.size();
  primary.run();
  ASSERT_DONE(caller.outcome());
  ASSERT_GT(primary.store.received.size(), before);
  EXPECT_EQ(primary.store.received[before].extents,
            (std::vector<Extent>{{20 * kBlockBytes, kBlocks * kBlockBytes}}));
}

// A writer that entered the epoch before its cut and writes after it: its data belongs to the
// epoch.
TEST_F(CheckpointTest, ALateWriterOfTheClosedEpochIsWaitedForAndShipped) {
  ASSERT_DONE(primary_.start());
  ASSERT_DONE(primary_.write(1, 5));
  ASSERT_DONE(primary_.write(100, 5));
  EpochObject& epoch = primary_.disk->epochs.enter();
  Caller caller(primary_);
  cut(caller);
  bool came = false;
  primary_.image->on_read_many = [&] {
    if (std::exchange(came, true)) {
      return;
    }
    ASSERT_DONE(primary_.image->write(100 * kBlockBytes, block_of(6)));
    epoch.unshipped.set({100, 101});
    primary_.disk->epochs.leave(epoch);
  };
  primary_.run();
  ASSERT_DONE(caller.outcome());
  expect_store_has(primary_.image_content());
}

TEST_F(CheckpointTest, BlocksOfZeroesTravelAsZeroExtents) {
  ASSERT_DONE(primary_.start());
  ASSERT_DONE(primary_.write({1, 9}, 5));
  ASSERT_DONE(primary_.checkpoint());
  ASSERT_DONE(primary_.path->zero({2 * kBlockBytes, 3 * kBlockBytes}, true, false));
  ASSERT_DONE(primary_.checkpoint());
  const Batch& batch = primary_.store.received.back();
  EXPECT_EQ(batch.extents,
            (std::vector<Extent>{{2 * kBlockBytes, 3 * kBlockBytes, ExtentKind::kZero}}));
  EXPECT_TRUE(batch.data.empty());
  expect_store_has(primary_.image_content());
}

TEST_F(CheckpointTest, AHotBlockIsSentTwiceAtMost) {
  ASSERT_DONE(primary_.start());
  const size_t from = primary_.store.received.size();
  for (uint64_t i = 1; i <= 100; ++i) {
    ASSERT_DONE(primary_.write(7, i));
    ASSERT_DONE(primary_.shipper->ship_ahead());
  }
  EXPECT_EQ(primary_.store.times_received(7, from), 1U);
  ASSERT_DONE(primary_.checkpoint());
  EXPECT_EQ(primary_.store.times_received(7, from), 2U);
  expect_store_has(primary_.image_content());
}

TEST_F(CheckpointTest, AheadAtMostTwiceWhatIsWrittenIsSent) {
  ASSERT_DONE(primary_.start());
  std::mt19937_64 random(3);
  const size_t from = primary_.store.received.size();
  for (int i = 0; i < 600; ++i) {
    ASSERT_DONE(primary_.write(random() % (1 + static_cast<uint64_t>(i) / 4), 1 + random() % 99));
    ASSERT_DONE(primary_.shipper->ship_ahead());
  }
  uint64_t sent_blocks = 0;
  for (size_t i = from; i < primary_.store.received.size(); ++i) {
    for (const Extent& extent : primary_.store.received[i].extents) {
      sent_blocks += block_count(extent.length);
    }
  }
  EXPECT_LE(sent_blocks, 2 * primary_.current().written.count());
}

TEST_F(CheckpointTest, ShippingIsDueByBytesOrByTime) {
  ASSERT_DONE(primary_.start());
  primary_.disk->batch_blocks = 10;
  EXPECT_FALSE(primary_.shipper->is_due());
  ASSERT_DONE(primary_.write({0, 9}, 1));
  EXPECT_FALSE(primary_.shipper->is_due());
  primary_.clock.pass(milliseconds(99));
  EXPECT_FALSE(primary_.shipper->is_due());
  primary_.clock.pass(milliseconds(1));
  EXPECT_TRUE(primary_.shipper->is_due());
  ASSERT_DONE(primary_.shipper->ship_ahead());
  EXPECT_FALSE(primary_.shipper->is_due());
  ASSERT_DONE(primary_.write({20, 30}, 1));
  EXPECT_TRUE(primary_.shipper->is_due());
}

TEST_F(CheckpointTest, VoidByAFailedBatchKeepsWhatIsChanged) {
  ASSERT_DONE(primary_.start());
  ASSERT_DONE(primary_.write({1, 3}, 5));
  primary_.store.fail_receive = kLinkBroke;
  Caller caller(primary_);
  cut(caller);
  ASSERT_DONE(primary_.write(9, 6));
  primary_.run();
  EXPECT_KIND(kVoid, caller.outcome());
  EXPECT_FALSE(primary_.session->is_open());
  for (const uint64_t block : std::initializer_list<uint64_t>{1, 2, 9}) {
    EXPECT_TRUE(primary_.is_changed(block));
  }
  EXPECT_EQ(last_number(), 1U);
  primary_.store.fail_receive.reset();
  ASSERT_DONE(primary_.open_session());
  const auto next = primary_.checkpoint();
  ASSERT_DONE(next);
  EXPECT_EQ(next->checkpoint.id.number, Epoch{3}) << "a number that was told is never used again";
  expect_store_has(primary_.image_content());
}

TEST_F(CheckpointTest, ABatchThatWasTornIsSentAgainInTheNextSession) {
  ASSERT_DONE(primary_.start());
  ASSERT_DONE(primary_.write({1, 3}, 5));
  ASSERT_DONE(primary_.shipper->ship_ahead());
  primary_.session->lose(kLinkBroke);  // what was received is dropped
  ASSERT_DONE(primary_.open_session());
  ASSERT_DONE(primary_.checkpoint());
  expect_store_has(primary_.image_content());
}

TEST_F(CheckpointTest, OutOfSpaceIsToldApart) {
  ASSERT_DONE(primary_.start());
  ASSERT_DONE(primary_.write(1, 5));
  primary_.store.fail_receive = Error{ErrorKind::kNoSpace, ENOSPC, "journal"};
  EXPECT_KIND(kNoSpace, primary_.checkpoint());
}

TEST_F(CheckpointTest, VoidWhenACopyIsLost) {
  Primary primary({}, {.memory_bytes = 0, .total_bytes = 0});
  ASSERT_DONE(primary.open_session());
  ASSERT_DONE(primary.write(1, 5));
  Caller caller(primary);
  primary.maker->step();
  ASSERT_DONE(primary.write(1, 6));
  primary.run();
  EXPECT_KIND(kVoid, caller.outcome());
  EXPECT_TRUE(primary.is_changed(1));
  EXPECT_FALSE(primary.store.greeting.last);
  ASSERT_DONE(primary.checkpoint());
  EXPECT_TRUE(primary.store.content == primary.image_content());
}

// Each lost session leaves copies that were taken and not sent.
TEST_F(CheckpointTest, CopiesThatCouldNotBeSentGiveBackTheirRoom) {
  Primary primary({}, {.memory_bytes = 2 * kBlockBytes, .total_bytes = 4 * kBlockBytes});
  ASSERT_DONE(primary.open_session());
  ASSERT_DONE(primary.checkpoint());
  for (int round = 0; round < 5; ++round) {
    ASSERT_DONE(primary.write({1, 5}, 5));
    Caller caller(primary);
    primary.maker->step();
    ASSERT_DONE(primary.write({1, 5}, 6));  // four copies, two of them spilled
    EXPECT_EQ(primary.disk->preserved.lost(), Epoch{});
    primary.store.fail_receive = kLinkBroke;
    primary.run();
    EXPECT_KIND(kVoid, caller.outcome());
    primary.store.fail_receive.reset();
    ASSERT_DONE(primary.open_session());
  }
  ASSERT_DONE(primary.checkpoint());
  EXPECT_TRUE(primary.store.content == primary.image_content());
}

TEST_F(CheckpointTest, ABlockThatCannotBeReadVoidsItAndKeepsTheSession) {
  ASSERT_DONE(primary_.start());
  ASSERT_DONE(primary_.write({1, 40}, 5));
  primary_.image->bad_block = 9;
  const auto outcome = primary_.checkpoint();
  EXPECT_KIND(kUnreadable, outcome);
  EXPECT_NE(outcome.error().message().find("pread image"), std::string::npos);
  EXPECT_NE(primary_.disk->trouble.text().find("pread image"), std::string::npos);
  EXPECT_TRUE(primary_.session->is_open());
  EXPECT_TRUE(primary_.is_changed(9));
  // What could be read has reached the store, and is not sent again.
  EXPECT_EQ(primary_.store.times_received(30), 1U);
  EXPECT_EQ(primary_.store.times_received(9), 0U);
  primary_.image->bad_block.reset();
  ASSERT_DONE(primary_.checkpoint());
  EXPECT_EQ(primary_.store.times_received(30), 1U);
  expect_store_has(primary_.image_content());
  EXPECT_EQ(primary_.disk->trouble.text(), "");
}

TEST_F(CheckpointTest, WhatCannotBeReadAheadIsTriedAgainAfterAWhile) {
  ASSERT_DONE(primary_.start());
  ASSERT_DONE(primary_.write({1, 40}, 5));
  primary_.clock.pass(std::chrono::seconds(1));
  primary_.image->bad_block = 9;
  EXPECT_FALSE(primary_.shipper->is_due());  // seen for the first time
  primary_.clock.pass(milliseconds(100));
  ASSERT_TRUE(primary_.shipper->is_due());
  EXPECT_KIND(kUnreadable, primary_.shipper->ship_ahead());
  EXPECT_EQ(primary_.store.times_received(30), 1U);
  primary_.clock.pass(milliseconds(500));
  EXPECT_FALSE(primary_.shipper->is_due());
  EXPECT_GT(primary_.shipper->rest(), milliseconds(400));
  EXPECT_NE(primary_.disk->trouble.text(), "");
  primary_.clock.pass(milliseconds(500));
  EXPECT_TRUE(primary_.shipper->is_due());
  primary_.image->bad_block.reset();
  ASSERT_DONE(primary_.shipper->ship_ahead());
  EXPECT_EQ(primary_.store.times_received(9), 1U);
  EXPECT_EQ(primary_.disk->trouble.text(), "");
}

TEST_F(CheckpointTest, VoidWhenASyncOfTheImageFailed) {
  ASSERT_DONE(primary_.start());
  ASSERT_DONE(primary_.write(1, 5));
  primary_.disk->trouble.sync_failed("EIO");
  EXPECT_KIND(kVoid, primary_.checkpoint());
  EXPECT_TRUE(primary_.is_changed(1));
  EXPECT_EQ(last_number(), 1U);
}

TEST_F(CheckpointTest, TheIntentIsDurableBeforeConfirmAndClosedAfter) {
  ASSERT_DONE(primary_.start());
  ASSERT_DONE(primary_.write(1, 5));
  bool confirmed = false;
  primary_.store.on_confirm = [&](const Confirmation& confirmation) {
    const auto intent = primary_.record->get().intent;
    ASSERT_TRUE(intent);
    EXPECT_EQ(intent->digest, confirmation.checkpoint.digest);
    EXPECT_EQ(intent->id, confirmation.checkpoint.id);
    confirmed = true;
  };
  ASSERT_DONE(primary_.checkpoint());
  EXPECT_TRUE(confirmed);
  EXPECT_FALSE(primary_.record->get().intent);
  EXPECT_EQ(primary_.record->get().last->id.number, Epoch{2});
}

TEST_F(CheckpointTest, AnIntentThatCannotBeRecordedIsVoid) {
  ASSERT_DONE(primary_.start());
  ASSERT_DONE(primary_.write(1, 5));
  Caller caller(primary_);
  cut(caller);
  primary_.machine.fail_operation(1, EIO);  // shipping writes no file
  primary_.run();
  EXPECT_KIND(kVoid, caller.outcome());
  EXPECT_EQ(last_number(), 1U);
  EXPECT_TRUE(primary_.is_changed(1));
}

TEST_F(CheckpointTest, TheWrittenMapIsKeptUntilTheImageIsSynced) {
  ASSERT_DONE(primary_.start());
  ASSERT_DONE(primary_.write(1, 5));
  Caller caller(primary_);
  for (int step = 0; step < 100 && !caller.is_answered(); ++step) {
    primary_.maker->step();
  }
  ASSERT_DONE(caller.outcome());
  EXPECT_TRUE(primary_.is_changed(1));
  EXPECT_FALSE(primary_.maker->step());
  const Epoch wanted = primary_.maker->wants_sync();
  EXPECT_EQ(wanted, Epoch{2});
  primary_.maker->synced(wanted);
  EXPECT_TRUE(primary_.maker->step());
  EXPECT_FALSE(primary_.is_changed(1));
  EXPECT_EQ(primary_.maker->wants_sync(), Epoch{});
}

// A sync that began before the epoch was frozen does not cover its last writers.
TEST_F(CheckpointTest, NoSyncIsWantedWhileTheClosedEpochHasWriters) {
  ASSERT_DONE(primary_.start());
  EpochObject& epoch = primary_.disk->epochs.enter();
  Caller caller(primary_);
  cut(caller);
  primary_.maker->step();
  EXPECT_EQ(primary_.maker->wants_sync(), Epoch{});
  EXPECT_FALSE(caller.is_answered());
  primary_.disk->epochs.leave(epoch);
  primary_.run();
  ASSERT_DONE(caller.outcome());
}

TEST_F(CheckpointTest, FoldingKeepsTheBlocksOfAMapThatWaitsForASync) {
  ASSERT_DONE(primary_.start());
  ASSERT_DONE(primary_.write(1, 5));
  Caller caller(primary_);
  for (int step = 0; step < 100 && !caller.is_answered(); ++step) {
    primary_.maker->step();
  }
  primary_.maker->fold();
  EXPECT_TRUE(primary_.maker->is_idle());
  EXPECT_TRUE(primary_.current().written.any({1, 2}));
}

TEST_F(CheckpointTest, AFailedWriteIsChangedAndShippedAllTheSame) {
  ASSERT_DONE(primary_.start());
  primary_.machine.fail_operation(3, EIO);  // after the region's mark: a write and a sync
  EXPECT_FALSE(primary_.write(1, 5));
  EXPECT_TRUE(primary_.is_changed(1));
  EXPECT_TRUE(primary_.current().unshipped.any({1, 2}));
  ASSERT_DONE(primary_.checkpoint());
  expect_store_has(primary_.image_content());
}

}  // namespace
}  // namespace ckpt::test
