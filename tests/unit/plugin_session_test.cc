// SPDX-License-Identifier: Apache-2.0
// What opening a session with the store means for the maps and the record.
#include <gtest/gtest.h>

#include <cerrno>
#include <chrono>

#include "plugin/checkpoint.h"
#include "tests/unit/plugin_fakes.h"

namespace ckpt::test {
namespace {

class SessionTest : public testing::Test {
 protected:
  Primary primary_;
};

TEST_F(SessionTest, OpeningMakesAllThatIsChangedUnshipped) {
  ASSERT_DONE(primary_.start());
  ASSERT_DONE(primary_.write({1, 4}, 5));
  ASSERT_DONE(primary_.shipper->ship_ahead());
  EXPECT_EQ(primary_.current().unshipped.count(), 0U);
  ASSERT_DONE(primary_.open_session());
  EXPECT_EQ(primary_.current().unshipped.count(), 3U);
}

TEST_F(SessionTest, OpeningRecordsBothIncarnations) {
  primary_.store.greeting.incarnation = 5;
  ASSERT_DONE(primary_.open_session());
  EXPECT_EQ(primary_.record->get().accepted, 5U);
  EXPECT_EQ(primary_.record->get().offered, 77U);
  EXPECT_EQ(primary_.store.greeting.incarnation, 77U);
  EXPECT_TRUE(primary_.session->is_open());
}

TEST_F(SessionTest, ADivergedStoreIsRefusedAndNothingIsChanged) {
  ASSERT_DONE(primary_.start());
  const auto before = encode_volume_record(primary_.record->get());
  primary_.store.greeting.last->id.timeline = uuid_of(99);
  EXPECT_KIND(kFenced, primary_.open_session());
  EXPECT_TRUE(primary_.session->is_diverged());
  EXPECT_FALSE(primary_.session->is_open());
  EXPECT_EQ(encode_volume_record(primary_.record->get()), before);
  EXPECT_EQ(primary_.disk->changed_blocks(), 0U);
}

TEST_F(SessionTest, AStoreThatWasPromotedIsOnRecord) {
  ASSERT_DONE(primary_.start());
  primary_.store.fail_begin = Error{ErrorKind::kFenced, 0, "promoted"};
  primary_.store.greeting.last->id.timeline = uuid_of(99);
  EXPECT_KIND(kFenced, primary_.open_session());
  EXPECT_TRUE(primary_.session->is_superseded());
  EXPECT_FALSE(primary_.session->is_open());
  EXPECT_TRUE(primary_.record->get().superseded);
}

TEST_F(SessionTest, TheBackUpThatItIsItselfIsRefusedAndNothingIsOnRecord) {
  ASSERT_DONE(primary_.start());
  primary_.store.fail_begin = Error{ErrorKind::kFenced, 0, "promoted"};
  EXPECT_KIND(kFenced, primary_.open_session());
  EXPECT_FALSE(primary_.session->is_superseded());
  EXPECT_FALSE(primary_.record->get().superseded);
}

TEST_F(SessionTest, TheRightStorePutBackIsNoLongerDiverged) {
  ASSERT_DONE(primary_.start());
  const Uuid timeline = primary_.store.greeting.last->id.timeline;
  primary_.store.greeting.last->id.timeline = uuid_of(99);
  EXPECT_KIND(kFenced, primary_.open_session());
  primary_.store.greeting.last->id.timeline = timeline;
  ASSERT_DONE(primary_.open_session());
  EXPECT_FALSE(primary_.session->is_diverged());
}

TEST_F(SessionTest, AnOlderStoreGetsTheWholeDisk) {
  ASSERT_DONE(primary_.start());
  ASSERT_DONE(primary_.write({1, 4}, 5));
  const Content old = primary_.store.content;
  const StoreGreeting greeting = primary_.store.greeting;
  ASSERT_DONE(primary_.checkpoint());
  primary_.store.content = old;
  primary_.store.greeting = greeting;  // it was restored
  const auto row = primary_.open_session();
  ASSERT_DONE(row);
  EXPECT_EQ(*row, HandshakeRow::kResync);
  EXPECT_TRUE(primary_.session->is_inexact());
  EXPECT_EQ(primary_.disk->changed_blocks(), Primary::kGeometry.blocks());

  ASSERT_DONE(
      primary_.checkpoint());  // its parent is what the store has: the store insists on that
  EXPECT_EQ(primary_.store.greeting.last->id, primary_.record->get().last->id);
}

// An image that was a primary's, at our last checkpoint but for three runs.
void rejoin(Primary& primary) {
  FakeStore& store = primary.store;
  store.stale_runs = {{8, 10}, {70, 71}, {202, 203}};
  const CheckpointInfo last = *primary.record->get().last;
  for (const BlockRange& run : store.stale_runs) {
    const ByteRange range = bytes_of(run, store.content.size());
    std::fill_n(store.content.begin() + static_cast<ptrdiff_t>(range.offset), range.length,
                std::byte{0xee});
  }
  store.greeting = {std::nullopt, 5, true, {{last.id, last.digest}}};
}

TEST_F(SessionTest, AnImageThatRejoinsGetsWhatIsStaleAndWhatHasChanged) {
  ASSERT_DONE(primary_.start());
  ASSERT_DONE(primary_.write({0, 80}, 3));
  ASSERT_DONE(primary_.checkpoint());
  ASSERT_DONE(primary_.write({1, 4}, 5));
  rejoin(primary_);
  const size_t before = primary_.store.received.size();
  const auto row = primary_.open_session();
  ASSERT_DONE(row);
  EXPECT_EQ(*row, HandshakeRow::kRejoin);
  EXPECT_TRUE(primary_.session->is_inexact());
  EXPECT_TRUE(primary_.session->is_comparable());
  EXPECT_FALSE(primary_.session->confirmed());
  EXPECT_EQ(primary_.disk->changed_blocks(), 3U + 4U);
  EXPECT_EQ(primary_.current().unshipped.count(), 3U + 4U);
  ASSERT_DONE(primary_.checkpoint());
  EXPECT_EQ(primary_.store.content, primary_.image_content());
  EXPECT_EQ(primary_.store.times_received(8, before), 1U);
  EXPECT_EQ(primary_.store.times_received(0, before), 0U);
}

TEST_F(SessionTest, AnImageThatAnsweredForMoreIsRefusedAndNothingIsChanged) {
  ASSERT_DONE(primary_.start());
  rejoin(primary_);
  primary_.store.greeting.bases.front().id.number.value += 2;
  const auto row = primary_.open_session();
  EXPECT_KIND(kFenced, row);
  EXPECT_NE(row.error().message().find("rejoin --discard"), std::string::npos);
  EXPECT_TRUE(primary_.session->is_diverged());
  EXPECT_EQ(primary_.disk->changed_blocks(), 0U);
}

TEST_F(SessionTest, OfAnImageThatRejoinsFromFartherBackAllIsCompared) {
  ASSERT_DONE(primary_.start());
  ASSERT_DONE(primary_.write({1, 4}, 5));
  ASSERT_DONE(primary_.checkpoint());
  rejoin(primary_);
  primary_.store.greeting.bases.front().id.number.value -= 1;
  const auto row = primary_.open_session();
  ASSERT_DONE(row);
  EXPECT_EQ(*row, HandshakeRow::kResync);
  EXPECT_EQ(primary_.disk->changed_blocks(), Primary::kGeometry.blocks());
}

TEST_F(SessionTest, AStoreThatIsNewGetsACheckpointWithoutAParent) {
  ASSERT_DONE(primary_.start());
  ASSERT_DONE(primary_.write({1, 4}, 5));
  ASSERT_DONE(primary_.checkpoint());
  primary_.store.content.assign(primary_.store.content.size(), std::byte{0});
  primary_.store.greeting = {};
  const auto row = primary_.open_session();
  ASSERT_DONE(row);
  EXPECT_EQ(*row, HandshakeRow::kResync);
  EXPECT_FALSE(primary_.session->confirmed());
  ASSERT_DONE(primary_.checkpoint());
  EXPECT_EQ(primary_.store.greeting.last->id, primary_.record->get().last->id);
  EXPECT_EQ(primary_.session->confirmed()->id, primary_.record->get().last->id);
}

TEST_F(SessionTest, AStoreThatDoesNotAnswerLeavesTheSessionClosed) {
  primary_.store.fail_begin = kLinkBroke;
  EXPECT_KIND(kUnreachable, primary_.open_session());
  EXPECT_FALSE(primary_.session->is_open());
  Caller caller(primary_, {.name = "", .message = "", .timeout = std::chrono::milliseconds(1)});
  EXPECT_FALSE(primary_.maker->step());
  caller.run_out_of_time();
  EXPECT_KIND(kVoid, caller.outcome());
}

}  // namespace
}  // namespace ckpt::test
