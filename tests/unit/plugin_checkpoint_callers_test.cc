// SPDX-License-Identifier: Apache-2.0
// Those who ask for a checkpoint: in a queue, out of patience, or told of an unknown outcome.
#include <gtest/gtest.h>

#include <cerrno>

#include "plugin/checkpoint.h"
#include "tests/unit/plugin_fakes.h"

namespace ckpt::test {
namespace {

using std::chrono::milliseconds;

// Waits so long at most, by the clock that the test moves.
CheckpointRequest patient_for(milliseconds timeout) {
  CheckpointRequest request;
  request.timeout = timeout;
  return request;
}

class CheckpointCallersTest : public MakerTest {};

TEST_F(CheckpointCallersTest, AnUnknownOutcomeIsAdoptedWhenTheStoreHasIt) {
  ASSERT_DONE(primary_.start());
  ASSERT_DONE(primary_.write(1, 5));
  primary_.store.lose_answer = kLinkBroke;
  Caller caller(primary_);
  primary_.run();
  EXPECT_FALSE(caller.is_answered());
  ASSERT_DONE(primary_.write(2, 6));
  primary_.store.lose_answer.reset();
  const auto row = primary_.open_session();
  ASSERT_DONE(row);
  EXPECT_EQ(*row, HandshakeRow::kAdopt);
  const auto outcome = caller.outcome();
  ASSERT_DONE(outcome);
  EXPECT_EQ(primary_.record->get().last->id, outcome->checkpoint.id);
  EXPECT_FALSE(primary_.record->get().intent);
  primary_.run();
  EXPECT_TRUE(primary_.is_changed(2));
  ASSERT_DONE(primary_.checkpoint());
  expect_store_has(primary_.image_content());
}

// The session that would have said so put it on record, and was lost before it was open.
TEST_F(CheckpointCallersTest, OneThatALostSessionAdoptedIsNotVoid) {
  ASSERT_DONE(primary_.start());
  ASSERT_DONE(primary_.write(1, 5));
  primary_.store.lose_answer = kLinkBroke;
  Caller caller(primary_);
  primary_.run();
  primary_.store.lose_answer.reset();
  primary_.store.fail_accept = kLinkBroke;
  EXPECT_FALSE(primary_.open_session());
  EXPECT_FALSE(caller.is_answered());
  primary_.store.fail_accept.reset();
  const auto row = primary_.open_session();
  ASSERT_DONE(row);
  EXPECT_EQ(*row, HandshakeRow::kGoOn);
  const auto outcome = caller.outcome();
  ASSERT_DONE(outcome);
  EXPECT_EQ(primary_.record->get().last->id, outcome->checkpoint.id);
}

TEST_F(CheckpointCallersTest, OneThatTheNextSessionFindsIsOnRecordOnce) {
  ASSERT_DONE(primary_.start());
  primary_.store.lose_answer = kLinkBroke;
  Caller caller(primary_);
  cut(caller);
  primary_.run();
  EXPECT_EQ(primary_.disk->events.counts().checkpoints, 1U);
  primary_.store.lose_answer.reset();
  ASSERT_DONE(primary_.open_session());
  EXPECT_TRUE(caller.outcome());
  EXPECT_EQ(primary_.disk->events.counts().checkpoints, 2U);
}

TEST_F(CheckpointCallersTest, AnUnknownOutcomeIsVoidWhenTheStoreDoesNotHaveIt) {
  ASSERT_DONE(primary_.start());
  ASSERT_DONE(primary_.write(1, 5));
  primary_.store.fail_confirm = kLinkBroke;
  Caller caller(primary_);
  primary_.run();
  EXPECT_FALSE(caller.is_answered());
  EXPECT_TRUE(primary_.is_changed(1));
  primary_.store.fail_confirm.reset();
  const auto row = primary_.open_session();
  ASSERT_DONE(row);
  EXPECT_EQ(*row, HandshakeRow::kGoOn);
  EXPECT_KIND(kVoid, caller.outcome());
  EXPECT_FALSE(primary_.record->get().intent);
  EXPECT_TRUE(primary_.is_changed(1));
  ASSERT_DONE(primary_.checkpoint());
  expect_store_has(primary_.image_content());
}

TEST_F(CheckpointCallersTest, ACallerIsToldThatItMayExistWhenTheStoreCannotBeAsked) {
  ASSERT_DONE(primary_.start());
  ASSERT_DONE(primary_.write(1, 5));
  primary_.store.lose_answer = kLinkBroke;
  Caller caller(primary_);
  primary_.run();
  primary_.maker->doubt(kLinkBroke);
  EXPECT_KIND(kTimeout, caller.outcome());
  EXPECT_TRUE(primary_.is_changed(1));
  primary_.store.lose_answer.reset();
  ASSERT_DONE(primary_.open_session());
  primary_.run();
  EXPECT_EQ(primary_.record->get().last->id.number, Epoch{2});
}

// The server stops while nobody knows whether the checkpoint exists.
TEST_F(CheckpointCallersTest, LeavingAnUnknownOutcomeKeepsItsBlocksChanged) {
  ASSERT_DONE(primary_.start());
  ASSERT_DONE(primary_.write(1, 5));
  primary_.store.fail_confirm = kLinkBroke;
  Caller caller(primary_);
  primary_.run();
  primary_.maker->doubt(kLinkBroke);
  primary_.maker->leave();
  EXPECT_EQ(primary_.disk->epochs.closed(), nullptr);
  EXPECT_TRUE(primary_.current().written.any({1, 2}));
  EXPECT_TRUE(primary_.record->get().intent);
}

TEST_F(CheckpointCallersTest, OneThatWasGivenUpBeforeItsCutIsNeverMade) {
  ASSERT_DONE(primary_.start());
  EXPECT_KIND(kVoid, primary_.maker->take(patient_for(milliseconds(0))));
  ASSERT_DONE(primary_.write(1, 5));
  primary_.run();
  EXPECT_EQ(last_number(), 1U);
}

TEST_F(CheckpointCallersTest, OneThatWasGivenUpAfterItsCutIsNeverConfirmed) {
  ASSERT_DONE(primary_.start());
  ASSERT_DONE(primary_.write(1, 5));
  Caller caller(primary_, patient_for(milliseconds(5)));
  cut(caller);
  caller.run_out_of_time();
  EXPECT_KIND(kVoid, caller.outcome());
  primary_.run();
  EXPECT_EQ(last_number(), 1U);
  EXPECT_FALSE(primary_.record->get().intent);
  EXPECT_TRUE(primary_.is_changed(1));
}

TEST_F(CheckpointCallersTest, OneThatWasGivenUpAfterConfirmMayExist) {
  ASSERT_DONE(primary_.start());
  primary_.store.lose_answer = kLinkBroke;
  Caller caller(primary_, patient_for(milliseconds(5)));
  primary_.run();
  caller.run_out_of_time();
  EXPECT_KIND(kTimeout, caller.outcome());
}

TEST_F(CheckpointCallersTest, WhatBecameOfThemIsCounted) {
  ASSERT_DONE(primary_.start());
  ASSERT_DONE(primary_.checkpoint());
  EXPECT_EQ(primary_.disk->events.counts().checkpoints, 2U);
  {
    Caller late(primary_, patient_for(milliseconds(5)));
    late.run_out_of_time();
  }
  EXPECT_EQ(primary_.disk->events.counts().void_checkpoints, 1U);
  primary_.run();
  Caller cancelled(primary_);
  cut(cancelled);
  primary_.maker->cancel("the server stops");
  EXPECT_FALSE(cancelled.outcome());
  EXPECT_EQ(primary_.disk->events.counts().void_checkpoints, 2U);
  EXPECT_EQ(primary_.disk->events.counts().checkpoints, 2U);
}

TEST_F(CheckpointCallersTest, CallersQueue) {
  ASSERT_DONE(primary_.start());
  Caller first(primary_);
  cut(first);
  Caller second(primary_);
  primary_.run();
  ASSERT_DONE(first.outcome());
  ASSERT_DONE(second.outcome());
  EXPECT_EQ(first.outcome()->checkpoint.id.number, Epoch{2});
  EXPECT_EQ(second.outcome()->checkpoint.id.number, Epoch{3});
}

TEST_F(CheckpointCallersTest, CancellingVoidsTheOneInProgressAndTheQueue) {
  ASSERT_DONE(primary_.start());
  ASSERT_DONE(primary_.write(1, 5));
  Caller first(primary_);
  cut(first);
  Caller second(primary_);
  primary_.maker->cancel("because");
  EXPECT_KIND(kVoid, first.outcome());
  EXPECT_KIND(kVoid, second.outcome());
  EXPECT_NE(first.outcome().error().message().find("because"), std::string::npos);
  EXPECT_TRUE(primary_.is_changed(1));
}

// Both may have asked while the name was free.
TEST_F(CheckpointCallersTest, TheSecondInTheQueueCannotHaveTheSameName) {
  ASSERT_DONE(primary_.start());
  Caller first(primary_, {.name = "n", .message = ""});
  cut(first);
  Caller second(primary_, {.name = "n", .message = ""});
  Caller third(primary_, {.name = "other", .message = ""});
  primary_.run();
  ASSERT_DONE(first.outcome());
  EXPECT_KIND(kInvalid, second.outcome());
  ASSERT_DONE(third.outcome());
  EXPECT_EQ(third.outcome()->checkpoint.id.number, Epoch{3});
}

// Whoever froze something for the cut need not wait for the rest.
TEST_F(CheckpointCallersTest, TheCutIsToldBeforeItExists) {
  ASSERT_DONE(primary_.start());
  ASSERT_DONE(primary_.write(1, 5));
  std::atomic<uint64_t> told{0};
  CheckpointRequest request;
  request.on_cut = [&told](Epoch number) { told.store(number.value); };
  Caller caller(primary_, request);
  EXPECT_EQ(told.load(), 0U);
  cut(caller);
  while (told.load() == 0) {
    std::this_thread::yield();
  }
  EXPECT_FALSE(caller.is_answered());
  ASSERT_DONE(primary_.write(1, 6));  // not in it
  primary_.run();
  ASSERT_DONE(caller.outcome());
  EXPECT_EQ(told.load(), caller.outcome()->checkpoint.id.number.value);
  EXPECT_TRUE(primary_.is_changed(1));
}

TEST_F(CheckpointCallersTest, OneThatIsNotBegunTellsOfNoCut) {
  ASSERT_DONE(primary_.start());
  CheckpointRequest request = patient_for(milliseconds(5));
  std::atomic<bool> told{false};
  request.on_cut = [&told](Epoch) { told.store(true); };
  Caller caller(primary_, request);
  caller.run_out_of_time();
  EXPECT_KIND(kVoid, caller.outcome());
  EXPECT_FALSE(told.load());
}

}  // namespace
}  // namespace ckpt::test
