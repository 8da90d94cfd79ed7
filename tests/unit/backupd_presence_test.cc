// SPDX-License-Identifier: Apache-2.0
// Whether a volume's primary is there, as a daemon tells who asks.
#include "tests/unit/served_talk.h"

namespace ckpt::test {
namespace {

class PresenceTest : public testing::Test, protected FirstCheckpoint {
 protected:
  PrimaryPresence seen(uint64_t features = kFeatures) {
    Talk reader(shelf_, ++connections_);
    reader.features = features;
    EXPECT_TRUE(reader.hello(Role::kReader));
    const auto status = reader.ask(FrameType::kStatus, {}, FrameType::kStoreStatus);
    EXPECT_TRUE(status);
    return decode_store_status(*status)->primary;
  }

  OneVolume shelf_;
  uint64_t connections_ = 100;
};

TEST_F(PresenceTest, OfOneThatWasNeverAccepted) {
  EXPECT_EQ(seen(), PrimaryPresence::kNever);
  Talk primary(shelf_, 1);
  ASSERT_DONE(primary.hello(Role::kSession));
  ASSERT_DONE(primary.ask(FrameType::kBeginSession, {}, FrameType::kGreeting));
  EXPECT_EQ(seen(), PrimaryPresence::kNever);
  (void)primary.end();
  EXPECT_EQ(seen(), PrimaryPresence::kNever);
}

TEST_F(PresenceTest, OfOneThatGoesWithoutAWord) {
  Talk primary(shelf_, 1);
  ASSERT_DONE(primary.begin());
  EXPECT_EQ(seen(), PrimaryPresence::kConnected);
  (void)primary.end();
  EXPECT_EQ(seen(), PrimaryPresence::kAway);
  Talk again(shelf_, 2);
  ASSERT_DONE(again.begin());
  EXPECT_EQ(seen(), PrimaryPresence::kConnected);
}

TEST_F(PresenceTest, OfOneThatSaysThatItStops) {
  Talk primary(shelf_, 1);
  ASSERT_DONE(primary.begin());
  ASSERT_DONE(primary.ask(FrameType::kStop, {}));
  EXPECT_EQ(seen(), PrimaryPresence::kConnected) << "it may take a while";
  (void)primary.end();
  EXPECT_EQ(seen(), PrimaryPresence::kStopped);
  Talk again(shelf_, 2);
  ASSERT_DONE(again.begin());
  (void)again.end();
  EXPECT_EQ(seen(), PrimaryPresence::kAway) << "what was said is of one session";
}

// Its first connection is given up late: that is no end of the second.
TEST_F(PresenceTest, OfOneThatComesOverAnotherConnection) {
  Talk first(shelf_, 1);
  Talk second(shelf_, 2);
  ASSERT_DONE(first.begin());
  ASSERT_DONE(second.begin());
  EXPECT_KIND(kFenced, first.ask(FrameType::kStop, {}));  // it is another's session
  (void)first.end();
  EXPECT_EQ(seen(), PrimaryPresence::kConnected);
  (void)second.end();
  EXPECT_EQ(seen(), PrimaryPresence::kAway);
}

// It began anew, on the same connection or another, and ends before it is accepted.
TEST_F(PresenceTest, OfOneThatEndsBetweenTwoSessions) {
  Talk first(shelf_, 1);
  Talk second(shelf_, 2);
  ASSERT_DONE(first.begin());
  ASSERT_DONE(second.hello(Role::kSession));
  ASSERT_DONE(second.ask(FrameType::kBeginSession, {}, FrameType::kGreeting));
  (void)second.end();
  EXPECT_EQ(seen(), PrimaryPresence::kAway);
}

// Alive, though the store does not take it (yet): it is not taken for dead. Another one says nothing
// of it.
TEST_F(PresenceTest, OfOneThatIsBackAndNotAcceptedAgain) {
  const PrimaryPlace its{digest_of(as_bytes_of("one")), "web1", "/srv/disk.img"};
  const PrimaryPlace other{digest_of(as_bytes_of("other")), "web2", "/srv/disk.img"};
  ServedVolume& volume = *shelf_.volume;
  ASSERT_DONE(volume.begin_session({1, its}));
  ASSERT_DONE(volume.accept(1, 7));
  volume.leave(1);
  ASSERT_DONE(volume.begin_session({2, other}));
  EXPECT_EQ(volume.status().primary, PrimaryPresence::kAway);
  volume.leave(2);
  ASSERT_DONE(volume.begin_session({3, its}));
  EXPECT_EQ(volume.status().primary, PrimaryPresence::kConnected);
  volume.leave(3);
  EXPECT_EQ(volume.status().primary, PrimaryPresence::kAway);
}

TEST_F(PresenceTest, OfOneThatSaidSoBeforeItWasAccepted) {
  ServedVolume& volume = *shelf_.volume;
  ASSERT_DONE(volume.begin_session({1}));
  ASSERT_DONE(volume.stop(1));
  ASSERT_DONE(volume.accept(1, 7));
  volume.leave(1);
  EXPECT_EQ(volume.status().primary, PrimaryPresence::kStopped);
}

TEST_F(PresenceTest, OfOneThatGaveItsRoleUp) {
  Talk primary(shelf_, 1);
  ASSERT_DONE(primary.begin());
  ASSERT_DONE(primary.ask(FrameType::kBatch, encode_batch_body(batch(1, {data(0, 3)}))));
  ASSERT_DONE(primary.ask(FrameType::kConfirm, encode_confirmation(confirmation(1))));
  ASSERT_DONE(
      primary.ask(FrameType::kPromote, encode_promote({{test_uuid(0x22), {1}}, test_uuid(0x33)})));
  ASSERT_DONE(primary.ask(FrameType::kStop, {}));
  shelf_.volume->leave(1);
  EXPECT_EQ(shelf_.volume->status().primary, PrimaryPresence::kStopped);
}

// Of an older version, or another backupd, which passes its checkpoints on.
TEST_F(PresenceTest, OfOneThatDoesNotTellWhenItStops) {
  Talk primary(shelf_, 1);
  primary.features = kFeatures & ~kKnowsPrimary;
  ASSERT_DONE(primary.begin());
  EXPECT_EQ(seen(), PrimaryPresence::kNotSaid);
  (void)primary.end();
  EXPECT_EQ(seen(), PrimaryPresence::kNotSaid) << "nobody knows whether it died";
}

TEST_F(PresenceTest, IsNotToldToWhoDoesNotKnowOfIt) {
  Talk primary(shelf_, 1);
  ASSERT_DONE(primary.begin());
  EXPECT_EQ(seen(kFeatures & ~kKnowsPrimary), PrimaryPresence::kNotSaid);
}

}  // namespace
}  // namespace ckpt::test
