// SPDX-License-Identifier: Apache-2.0
// A volume that a daemon lets go of, for another program of its machine.
#include "tests/unit/served_talk.h"

namespace ckpt::test {
namespace {

class ReleaseTest : public testing::Test, protected FirstCheckpoint {
 protected:
  static auto ask(Talk& talk, const Uuid& volume = test_uuid(0x11), bool force = false) {
    return talk.ask(FrameType::kRelease, encode_release({volume, force}));
  }

  OneVolume shelf_;
  const Admission local_{"", nullptr, true};
};

TEST_F(ReleaseTest, IsUndoneWhenWhoAskedForItHasGone) {
  Talk talk(shelf_, 1, local_);
  ASSERT_DONE(talk.visit());
  ASSERT_DONE(ask(talk));
  EXPECT_TRUE(shelf_.is_released);
  EXPECT_KIND(kInvalid, ask(talk));  // one at a time
  EXPECT_TRUE(talk.ask(FrameType::kPing, {})) << "a refusal ends nothing";
  EXPECT_TRUE(shelf_.is_released);
  (void)talk.end();
  EXPECT_FALSE(shelf_.is_released);
}

TEST_F(ReleaseTest, WhatWasRefusedIsNotTakenBack) {
  shelf_.is_released = true;  // by another
  {
    Talk talk(shelf_, 1, local_);
    ASSERT_DONE(talk.visit());
    EXPECT_KIND(kNotFound, ask(talk, test_uuid(0x12)));
  }
  EXPECT_TRUE(shelf_.is_released);
}

TEST_F(ReleaseTest, IsForWhoIsOnThisMachine) {
  Talk talk(shelf_, 1);
  ASSERT_DONE(talk.visit());
  EXPECT_KIND(kDenied, ask(talk));
  EXPECT_FALSE(shelf_.is_released);
  Talk reader(shelf_, 2, local_);
  ASSERT_DONE(reader.hello(Role::kReader));
  EXPECT_KIND(kInvalid, ask(reader));  // a visitor's
}

TEST_F(ReleaseTest, EndsWhoeverUsesTheVolume) {
  Talk primary(shelf_, 1);
  Talk reader(shelf_, 2);
  ASSERT_DONE(primary.hello(Role::kSession));
  ASSERT_DONE(reader.hello(Role::kReader));
  Talk talk(shelf_, 3, local_);
  ASSERT_DONE(talk.visit());
  ASSERT_DONE(ask(talk));  // nobody was accepted
  EXPECT_FALSE(primary.ask(FrameType::kPing, {}));
  EXPECT_FALSE(reader.ask(FrameType::kPing, {}));
  Talk late(shelf_, 4);
  EXPECT_KIND(kBusy, late.hello(Role::kReader));
}

TEST_F(ReleaseTest, AConnectedPrimaryNoticesNothingUnlessItIsForced) {
  Talk primary(shelf_, 1);
  ASSERT_DONE(primary.begin());
  Talk talk(shelf_, 2, local_);
  ASSERT_DONE(talk.visit());
  const auto refused = ask(talk);
  EXPECT_KIND(kBusy, refused);
  EXPECT_NE(refused.error().message().find("the client"), std::string::npos) << "where it is";
  ASSERT_DONE(primary.ask(FrameType::kPing, {}));
  ASSERT_DONE(ask(talk, test_uuid(0x11), true));
  EXPECT_FALSE(primary.ask(FrameType::kPing, {}));
}

TEST_F(ReleaseTest, APrimaryThatGaveItsRoleUpKeepsNobodyFromIt) {
  Talk primary(shelf_, 1);
  ASSERT_DONE(primary.begin());
  ASSERT_DONE(primary.ask(FrameType::kBatch, encode_batch_body(batch(1, {data(0, 3)}))));
  ASSERT_DONE(primary.ask(FrameType::kConfirm, encode_confirmation(confirmation(1))));
  ASSERT_DONE(
      primary.ask(FrameType::kPromote, encode_promote({{test_uuid(0x22), {1}}, test_uuid(0x33)})));
  Talk talk(shelf_, 2, local_);
  ASSERT_DONE(talk.visit());
  ASSERT_DONE(ask(talk));
}

TEST_F(ReleaseTest, NoSessionIsLeft) {
  ASSERT_DONE(shelf_.volume->begin_session({1}));
  ASSERT_DONE(shelf_.volume->accept(1, 7));
  ASSERT_DONE(shelf_.volume->retire(true));
  const auto act = shelf_.volume->in_session(1, [](Store&) { return Result<>(); });
  EXPECT_KIND(kUnreachable, act);
  EXPECT_KIND(kUnreachable, shelf_.volume->begin_session({2}));
}

}  // namespace
}  // namespace ckpt::test
