// SPDX-License-Identifier: Apache-2.0
// What a rebuild puts on record before it touches the image, and when it may not.
#include <gtest/gtest.h>

#include "plugin/handshake.h"
#include "plugin/rebuild.h"

namespace ckpt {
namespace {

Uuid rebuild_uuid(uint8_t value) {
  Uuid uuid;
  uuid.bytes.fill(value);
  return uuid;
}

CheckpointInfo checkpoint(uint64_t number) {
  CheckpointInfo info;
  info.id = {rebuild_uuid(2), Epoch{number}};
  info.digest.bytes = {static_cast<uint8_t>(number)};
  return info;
}

class RebuildTest : public ::testing::Test {
 protected:
  RebuildTest() {
    record_.volume = store_.volume = rebuild_uuid(1);
    record_.size_bytes = store_.size_bytes = 1U << 20U;
    record_.timeline = rebuild_uuid(2);
    record_.accepted = store_.incarnation = 77;
    record_.last = store_.last = checkpoint(5);
  }
  Result<> plan(bool fence = false) {
    return plan_rebuild(record_, store_, {std::nullopt, fence, rebuild_uuid(3)});
  }
  VolumeRecord record_;
  StoreRecord store_;
};

TEST_F(RebuildTest, EverythingIsToBeRolledBack) {
  ASSERT_TRUE(plan(true));
  EXPECT_TRUE(record_.everything);
  EXPECT_EQ(record_.rollback->checkpoint, checkpoint(5).id);
  EXPECT_EQ(record_.rollback->to, rebuild_uuid(3));
  EXPECT_TRUE(record_.rollback->fence);
  // The next start goes on with it.
  EXPECT_EQ(decide_handshake(record_, {store_.last, store_.incarnation}), HandshakeRow::kRollBack);
}

TEST_F(RebuildTest, WhatTheStoreConfirmedAndNobodyRecordedIsAdopted) {
  record_.intent = store_.last = checkpoint(6);
  ASSERT_TRUE(plan());
  EXPECT_EQ(record_.last->id, checkpoint(6).id);
  EXPECT_FALSE(record_.intent);
  EXPECT_EQ(record_.rollback->checkpoint, checkpoint(6).id);
}

TEST_F(RebuildTest, AnOlderStoreOfOursIsAllThereIs) {
  store_.last = checkpoint(4);
  ASSERT_TRUE(plan());
  EXPECT_EQ(record_.last->id, checkpoint(4).id);
  EXPECT_EQ(decide_handshake(record_, {store_.last, store_.incarnation}), HandshakeRow::kRollBack);
}

TEST_F(RebuildTest, OneThatWasBegunGoesOn) {
  record_.rollback = RollbackTarget{checkpoint(5).id, rebuild_uuid(9), false};
  ASSERT_TRUE(plan(true));
  EXPECT_EQ(record_.rollback->to, rebuild_uuid(9));
  EXPECT_TRUE(record_.rollback->fence);
  EXPECT_TRUE(record_.everything);
}

TEST_F(RebuildTest, RefusedWhatIsNotOurs) {
  const auto refused = [this](ErrorKind kind) {
    const auto planned = plan();
    ASSERT_FALSE(planned);
    EXPECT_EQ(planned.error().kind, kind) << planned.error().message();
    EXPECT_FALSE(record_.rollback);
    EXPECT_FALSE(record_.everything);
  };
  const StoreRecord ours = store_;
  store_.volume = rebuild_uuid(8);
  refused(ErrorKind::kFenced);
  store_ = ours;
  store_.incarnation = 78;
  refused(ErrorKind::kFenced);
  store_ = ours;
  store_.last = checkpoint(7);
  refused(ErrorKind::kFenced);
  store_.last.reset();
  refused(ErrorKind::kNotFound);
}

TEST_F(RebuildTest, RefusedForACheckpointThatIsNotKept) {
  const auto planned = plan_rebuild(record_, store_, {checkpoint(4).id, false, rebuild_uuid(3)});
  ASSERT_FALSE(planned);
  EXPECT_EQ(planned.error().kind, ErrorKind::kNotFound);
}

}  // namespace
}  // namespace ckpt
