// SPDX-License-Identifier: Apache-2.0
// Relays: the further store has whole checkpoints of the line, exactly, whatever breaks.
#include <random>

#include "tests/unit/relayed_stores.h"

namespace ckpt::test {
namespace {

TEST_F(RelayTest, PassesNothingWhereThereIsNothing) {
  ASSERT_DONE(peer_.ship(1, {data(0, 4)}));
  EXPECT_EQ(*relay_->step(), false);
  EXPECT_FALSE(further_->record().last);
  EXPECT_FALSE(relay_->passed());
}

TEST_F(RelayTest, PassesWholeCheckpointsOn) {
  ASSERT_DONE(peer_.ship(1, {data(0, 4), data(9, 1)}));
  ASSERT_DONE(peer_.attach(1, "memory", 10000));
  ASSERT_DONE(peer_.attach(1, "state", 1));
  checkpoint(1);
  relay_all();
  expect_passed(1);
  EXPECT_EQ(relay_->passed(), peer_.last->checkpoint.id);
  EXPECT_EQ(further_->record().incarnation, peer_.incarnation);
  ASSERT_DONE(peer_.ship(2, {zeroes(1, 2), data(15, 1)}));
  checkpoint(2);
  ASSERT_DONE(peer_.ship(3, {data(0, 16)}));  // pending
  relay_all();
  expect_passed(2);
  EXPECT_EQ(further_->status().pending_bytes, 0U);
}

TEST_F(RelayTest, PassesOnOnlyWhatChanged) {
  ASSERT_DONE(peer_.ship(1, {data(0, 12)}));
  checkpoint(1);
  relay_all();
  EXPECT_EQ(link_.blocks, 12U);  // no holes into a new store
  link_.blocks = 0;
  ASSERT_DONE(peer_.ship(2, {data(3, 2)}));
  checkpoint(2);
  ASSERT_DONE(peer_.ship(4, {data(4, 3)}));
  checkpoint(4);
  relay_all();
  EXPECT_EQ(link_.blocks, 4U);
  expect_passed(4);
}

TEST_F(RelayTest, AnEmptyCheckpointIsOne) {
  ASSERT_DONE(peer_.ship(1, {data(0, 1)}));
  checkpoint(1);
  relay_all();
  checkpoint(2);
  relay_all();
  expect_passed(2);
  EXPECT_EQ(link_.batches, 1U);
}

TEST_F(RelayTest, OneThatWasRestartedComparesByDigests) {
  ASSERT_DONE(peer_.ship(1, {data(0, 12)}));
  checkpoint(1);
  relay_all();
  start_relay();
  link_.blocks = 0;
  ASSERT_DONE(peer_.ship(2, {data(3, 1), zeroes(8, 2), data(14, 2)}));
  checkpoint(2);
  relay_all();
  EXPECT_EQ(link_.blocks, 5U);
  expect_passed(2);
}

// Part of what is passed on is pending there when this store changes again: what is as the further
// store's last checkpoint had it is sent all the same.
TEST_F(RelayTest, WhatChangesBackIsSentAgain) {
  ASSERT_DONE(peer_.ship(1, {data(1, 4)}));
  checkpoint(1);
  relay_all();
  start_relay();  // compares
  ASSERT_DONE(peer_.ship(2, {data(0, 1), data(7, 1)}));
  attach_two(2);
  checkpoint(2);
  bool is_overtaken = false;
  link_.on_attach = [&] {
    if (!std::exchange(is_overtaken, true)) {
      ASSERT_DONE(peer_.ship(3, {zeroes(0, 1)}));
      checkpoint(3);
      ASSERT_DONE(peer_.store().finish_applying());
    }
  };
  relay_all();
  EXPECT_TRUE(is_overtaken);
  expect_passed(3);
}

// What changes is handed over before, and waits; where too much would wait the relay begins again
// with what is left.
TEST_F(RelayTest, GoesOnWithALaterCheckpointWhereTooMuchWaits) {
  start_relay(4 * kBlockBytes);
  ASSERT_DONE(peer_.ship(1, {data(0, 4), data(8, 4)}));
  ASSERT_DONE(peer_.attach(1, "memory", 1000));
  checkpoint(1);
  bool has_changed = false;
  link_.on_attach = [&] {
    if (!std::exchange(has_changed, true)) {
      ASSERT_DONE(peer_.ship(2, {data(8, 2)}));
      checkpoint(2);
      ASSERT_DONE(peer_.store().finish_applying());
    }
  };
  EXPECT_EQ(*relay_->step(), true);
  EXPECT_FALSE(further_->record().last);
  relay_all();
  expect_passed(2);
  // What was sent first is of an epoch that is no later than the checkpoint's parent.
  further_.reset();
  further_disk_.lose_power(0);
  open_further();
  expect_passed(2);
}

// Nothing is compared, though the relay is new.
TEST_F(RelayTest, OneThatWasRestartedAtTheLastCheckpointGoesOn) {
  ASSERT_DONE(peer_.ship(1, {data(0, 12)}));
  checkpoint(1);
  relay_all();
  start_relay();
  relay_all();
  EXPECT_EQ(relay_->passed(), peer_.last->checkpoint.id);
  link_.blocks = link_.compared = link_.sessions = 0;
  ASSERT_DONE(peer_.ship(2, {data(3, 1)}));
  checkpoint(2);
  relay_all();
  EXPECT_EQ(link_.blocks, 1U);
  EXPECT_EQ(link_.compared, 0U);
  expect_passed(2);
}

// It may be another's.
TEST_F(RelayTest, BeginsNoSessionWhereNothingIsLacking) {
  checkpoint(1);
  relay_all();
  start_relay();
  link_.sessions = 0;
  relay_all();
  EXPECT_EQ(link_.sessions, 0U);
}

// What was taken for it and is not sent is not left out, whatever the error looks like.
TEST_F(RelayTest, AnAnswerThatIsBusyIsNoOvertaking) {
  ASSERT_DONE(peer_.ship(1, {data(0, 12)}));
  checkpoint(1);
  relay_all();
  ASSERT_DONE(peer_.ship(2, {data(3, 4)}));
  checkpoint(2);
  ASSERT_DONE(peer_.store().finish_applying());
  start_relay(8 * kBlockBytes);  // compares
  link_.on_compare = [](uint64_t nth) {
    return nth == 1 ? Result<>(fail(ErrorKind::kBusy, "no memory")) : Result<>();
  };
  (void)relay_->step();
  relay_all();
  expect_passed(2);
}

// However often it is overtaken: a store takes only so many epochs that no checkpoint covers.
TEST_F(RelayTest, WhatIsOvertakenIsOfOneEpoch) {
  uint64_t number = 1;
  const auto next = [&] {
    ASSERT_DONE(peer_.ship(number, {data(number % 16, 1)}));
    attach_two(number);
    checkpoint(number);
  };
  next();
  link_.on_attach = [&] {
    if (number < 2 * kPendingEpochsMax) {
      ++number;
      next();
    }
  };
  relay_all();
  EXPECT_EQ(link_.sessions, 1U);
  expect_passed(number);
}

// While it takes its time.
TEST_F(RelayTest, IsKeptAlive) {
  uint64_t told = 0;
  relay_.reset();
  relay_ = std::make_unique<Relay>(peer_.store(), link_, kRelayQueueBytesMax, [&] { ++told; });
  ASSERT_DONE(peer_.ship(1, {data(0, 1), data(8, 1)}));
  checkpoint(1);
  relay_all();
  EXPECT_GE(told, 3U);
}

// The disk goes on where attachments never get there in time.
TEST_F(RelayTest, OvertakenAttachmentsDoNotHoldTheDiskBack) {
  ASSERT_DONE(peer_.ship(1, {data(0, 16)}));
  attach_two(1);
  checkpoint(1);
  uint64_t number = 1;
  link_.on_attach = [&] {
    if (number < 4) {
      ++number;
      attach_two(number);
      checkpoint(number);
    }
  };
  EXPECT_EQ(*relay_->step(), true);
  EXPECT_EQ(link_.blocks, 16U);
  relay_all();
  EXPECT_EQ(link_.blocks, 16U);
  expect_passed(4);
}

TEST_F(RelayTest, FollowsRollbacks) {
  ASSERT_DONE(peer_.ship(1, {data(0, 4)}));
  checkpoint(1);
  relay_all();
  for (const uint8_t timeline : {uint8_t{0x33}, uint8_t{0x44}}) {
    ASSERT_DONE(peer_.roll_back(test_uuid(timeline)));
    remember();
  }
  relay_all();
  expect_passed(1);
  EXPECT_EQ(further_->record().forks, peer_.store().record().forks);
  ASSERT_DONE(peer_.roll_back(test_uuid(0x55)));
  ASSERT_DONE(peer_.begin());
  ASSERT_DONE(peer_.ship(2, {data(3, 1)}));
  checkpoint(2);
  relay_all();
  expect_passed(2);
  EXPECT_EQ(further_->record().forks, peer_.store().record().forks);
  EXPECT_EQ(further_->record().last->id.timeline, test_uuid(0x55));
}

TEST_F(RelayTest, TellsOfThePrimarysNextLife) {
  checkpoint(1);
  relay_all();
  peer_.incarnation = 8;
  ASSERT_DONE(peer_.begin());
  relay_all();
  EXPECT_EQ(further_->record().incarnation, 8U);
}

TEST_F(RelayTest, AnAnswerThatIsLostIsFoundOut) {
  ASSERT_DONE(peer_.ship(1, {data(0, 4)}));
  checkpoint(1);
  link_.on_call = [&](bool is_after) {
    return is_after && link_.confirmed == 1
               ? Result<>(fail(ErrorKind::kUnreachable, "the answer is lost"))
               : Result<>();
  };
  EXPECT_KIND(kUnreachable, relay_->step());
  link_.on_call = [](bool) { return Result<>(); };
  ASSERT_DONE(peer_.ship(2, {data(9, 1)}));
  checkpoint(2);
  link_.blocks = 0;
  relay_all();
  EXPECT_EQ(link_.blocks, 1U);
  expect_passed(2);
}

// As its primary it has gone on, or this store was put back from an older copy.
TEST_F(RelayTest, WhatIsNotOnTheLineIsLeftAlone) {
  ASSERT_DONE(peer_.ship(1, {data(0, 4)}));
  checkpoint(1);
  relay_all();
  StorePeer other(further_disk_);
  further_.reset();
  ASSERT_DONE(other.open());
  other.last = peer_.last;
  ASSERT_DONE(other.begin());
  ASSERT_DONE(other.ship(2, {data(5, 1)}));
  ASSERT_DONE(other.checkpoint(2));
  const StorePeer::Known theirs = *other.last;
  known_[theirs.checkpoint.id] = theirs;
  other.close();
  open_further();
  EXPECT_KIND(kFenced, relay_->step());
  EXPECT_KIND(kFenced, relay_->step());
  ASSERT_DONE(peer_.ship(2, {data(6, 1)}));
  ASSERT_DONE(peer_.checkpoint(2));  // of the same name, with another digest
  EXPECT_KIND(kFenced, relay_->step());
  EXPECT_EQ(further_->record().last->digest, theirs.checkpoint.digest);
  expect_whole();
}

// Of a store that has no checkpoint of its own yet: after a fail-over, say.
TEST_F(RelayTest, ANewStoreIsToldOfItsLine) {
  ASSERT_DONE(peer_.ship(1, {data(0, 4)}));
  checkpoint(1);
  relay_all();
  const CheckpointId fork = peer_.last->checkpoint.id;
  relay_.reset();
  MemoryDisk other_disk;
  StorePeer other(other_disk);
  ASSERT_DONE(other.open());
  other.timeline = test_uuid(0x44);
  ASSERT_DONE(other.begin());
  ASSERT_DONE(other.store().tell_forks({fork}));
  ASSERT_DONE(other.ship(2, {data(2, 5)}));
  ASSERT_DONE(other.checkpoint(2));
  ASSERT_DONE(other.store().tell_forks({}));  // it has its own now
  known_[other.last->checkpoint.id] = *other.last;
  Relay relay(other.store(), link_);
  for (Result<bool> more = true; *more; more = relay.step()) {
    ASSERT_DONE(more);
  }
  expect_passed(2);
  EXPECT_EQ(further_->record().forks, std::vector{fork});
}

TEST_F(RelayTest, NothingIsPassedToOneThatWasPromoted) {
  checkpoint(1);
  relay_all();
  ASSERT_DONE(further_->promote(test_uuid(0x77)));
  checkpoint(2);
  EXPECT_KIND(kFenced, relay_->step());
  EXPECT_EQ(further_->record().last->id.number.value, 1U);
}

TEST_F(RelayTest, ACopyHasToFollow) {
  ASSERT_DONE(peer_.ship(1, {data(0, 4)}));
  checkpoint(1);
  relay_all();
  const CheckpointCopy again{{peer_.last->checkpoint, {}}, {}};
  EXPECT_KIND(kInvalid, further_->confirm_copy(again));
  ASSERT_DONE(further_->begin_session());
  ASSERT_DONE(further_->accept(7));
  CheckpointCopy foreign = again;
  foreign.confirmation.checkpoint.id = {test_uuid(0x66), {5}};
  EXPECT_KIND(kInvalid, further_->confirm_copy(foreign));
  expect_passed(1);
}

}  // namespace
}  // namespace ckpt::test
