// SPDX-License-Identifier: Apache-2.0
// Attachments on their way through a primary: a feed, and the checkpoint that they are part of.
#include <gtest/gtest.h>

#include <thread>

#include "plugin/checkpoint.h"
#include "tests/unit/plugin_fakes.h"

namespace ckpt::test {
namespace {

std::vector<std::byte> piece_at(uint64_t offset, uint64_t bytes) {
  std::vector<std::byte> raw(bytes);
  for (uint64_t i = 0; i < bytes; ++i) {
    raw[i] = static_cast<std::byte>((offset + i) * 31 + (offset + i) / 256);
  }
  return encode_piece(offset, raw, {Codec::kNone, 1});
}

std::shared_ptr<AttachmentFeed> feed_of(std::vector<std::string> names) {
  auto feed = AttachmentFeed::make(std::move(names));
  EXPECT_TRUE(feed);
  return *feed;
}

constexpr std::chrono::nanoseconds kNow{0};

TEST(AttachmentFeed, GivesWhatWasPutInItsOrder) {
  const auto feed = feed_of({"a", "b"});
  ASSERT_DONE(feed->put({0, piece_at(0, 100)}));
  ASSERT_DONE(feed->put({1, piece_at(0, 7)}));
  ASSERT_DONE(feed->put({0, piece_at(100, 50)}));
  EXPECT_FALSE(feed->is_complete());
  feed->end();
  EXPECT_FALSE(feed->is_complete()) << "not all was taken";
  EXPECT_EQ(feed->take(kNow)->bytes, piece_at(0, 100));
  EXPECT_EQ(feed->take(kNow)->index, 1U);
  EXPECT_EQ(feed->take(kNow)->bytes, piece_at(100, 50));
  EXPECT_FALSE(feed->take(kNow));
  EXPECT_TRUE(feed->is_complete());
  const auto infos = feed->infos();
  ASSERT_EQ(infos.size(), 2U);
  EXPECT_EQ(infos[0].name, "a");
  EXPECT_EQ(infos[0].size_bytes, 150U);
  EXPECT_EQ(infos[1].size_bytes, 7U);
  EXPECT_EQ(infos[1].stored_bytes, 7 + kPieceHeaderBytes);
}

TEST(AttachmentFeed, WhatDoesNotFitIsRefused) {
  const auto feed = feed_of({"a"});
  EXPECT_KIND(kCorrupt, feed->put({1, piece_at(0, 1)}));
  EXPECT_KIND(kCorrupt, feed->put({0, piece_at(5, 1)}));
  EXPECT_KIND(kCorrupt, feed->put({0, {}}));
  ASSERT_DONE(feed->put({0, piece_at(0, 1)}));
  EXPECT_KIND(kCorrupt, feed->put({0, piece_at(0, 1)}));
  EXPECT_FALSE(AttachmentFeed::make({"a", "a"}));
  EXPECT_FALSE(AttachmentFeed::make({""}));
  EXPECT_FALSE(AttachmentFeed::make({"a/b"}));
  EXPECT_FALSE(AttachmentFeed::make(std::vector<std::string>(kAttachmentsMax + 1, "a")));
}

// However fast it is brought, little of it waits in memory.
TEST(AttachmentFeed, WhoBringsWaitsForRoom) {
  const auto feed = feed_of({"a"});
  std::atomic<uint64_t> brought{0};
  constexpr uint64_t kPieces = 3 * kFeedBytesMax / kPieceBytes;
  std::thread bringer([&] {
    for (uint64_t i = 0; i < kPieces; ++i) {
      EXPECT_TRUE(feed->put({0, piece_at(i * kPieceBytes, kPieceBytes)}));
      ++brought;
    }
    feed->end();
  });
  // Until it gets no further.
  for (uint64_t before = 0; brought == 0 || brought != before;) {
    before = brought;
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
  }
  EXPECT_LE(brought, kFeedBytesMax / kPieceBytes + 1);
  uint64_t taken = 0;
  while (!feed->is_complete()) {
    const auto piece = feed->take(std::chrono::seconds(1));
    taken += piece ? 1 : 0;
    EXPECT_LE(brought, taken + kFeedBytesMax / kPieceBytes + 1);
  }
  bringer.join();
  EXPECT_EQ(taken, kPieces);
}

TEST(AttachmentFeed, WhoBringsIsToldThatNobodyTakes) {
  const auto feed = feed_of({"a"});
  std::thread bringer([&] {
    Result<> put;
    for (uint64_t i = 0; put; ++i) {
      put = feed->put({0, piece_at(i * kPieceBytes, kPieceBytes)});
    }
    EXPECT_EQ(put.error().kind, ErrorKind::kVoid);
  });
  feed->stop();
  bringer.join();
}

class MakerAttachmentsTest : public MakerTest {
 protected:
  void SetUp() override { ASSERT_DONE(primary_.start()); }
  Result<CheckpointOutcome> checkpoint_with(const std::shared_ptr<AttachmentFeed>& feed) {
    CheckpointRequest request;
    request.attachments = feed;
    return primary_.checkpoint(request);
  }
  // Pieces that the store got for that attachment of the last checkpoint.
  std::vector<std::vector<std::byte>> arrived(uint32_t index) {
    return primary_.store.attached[{primary_.store.greeting.last->id.number, index}];
  }
};

TEST_F(MakerAttachmentsTest, TheyArePartOfTheCheckpoint) {
  ASSERT_DONE(primary_.write(1, 5));
  const auto feed = feed_of({"memory", "empty"});
  ASSERT_DONE(feed->put({0, piece_at(0, 100)}));
  ASSERT_DONE(feed->put({0, piece_at(100, 100)}));
  feed->end();
  const auto outcome = checkpoint_with(feed);
  ASSERT_DONE(outcome);
  EXPECT_EQ(outcome->checkpoint.attachments, feed->infos());
  EXPECT_EQ(primary_.store.greeting.last->attachments, feed->infos());
  EXPECT_EQ(arrived(0), (std::vector{piece_at(0, 100), piece_at(100, 100)}));
  EXPECT_TRUE(arrived(1).empty());
  EXPECT_EQ(primary_.record->get().last->attachments, feed->infos());
  ASSERT_DONE(primary_.checkpoint());
  EXPECT_TRUE(primary_.record->get().last->attachments.empty());
}

// No CONFIRM before the last piece has come; writes go on.
TEST_F(MakerAttachmentsTest, TheCheckpointWaitsForThem) {
  const auto feed = feed_of({"memory"});
  CheckpointRequest request;
  request.attachments = feed;
  Caller caller(primary_, request);
  for (int i = 0; i < 5; ++i) {
    primary_.maker->step();
  }
  EXPECT_FALSE(caller.is_answered());
  EXPECT_TRUE(primary_.maker->is_making());
  ASSERT_DONE(primary_.write(2, 6));
  ASSERT_DONE(feed->put({0, piece_at(0, 10)}));
  primary_.maker->step();
  EXPECT_FALSE(caller.is_answered());
  feed->end();
  primary_.run();
  ASSERT_DONE(caller.outcome());
  EXPECT_TRUE(primary_.is_changed(2)) << "written after the cut";
}

TEST_F(MakerAttachmentsTest, WhatIsNotWholeMakesItVoid) {
  ASSERT_DONE(primary_.write(1, 5));
  const auto feed = feed_of({"memory"});
  ASSERT_DONE(feed->put({0, piece_at(0, 100)}));
  feed->abort({ErrorKind::kIo, EIO, "read /run/state"});
  const auto outcome = checkpoint_with(feed);
  EXPECT_KIND(kVoid, outcome);
  EXPECT_NE(outcome.error().message().find("/run/state"), std::string::npos);
  EXPECT_TRUE(primary_.is_changed(1));
  ASSERT_DONE(primary_.checkpoint());
  expect_store_has(primary_.image_content());
}

TEST_F(MakerAttachmentsTest, AStoreThatTakesNoneMakesItVoidAndEndsTheSession) {
  for (const ErrorKind kind : {ErrorKind::kNoSpace, ErrorKind::kUnreachable}) {
    const auto feed = feed_of({"memory"});
    ASSERT_DONE(feed->put({0, piece_at(0, 100)}));
    feed->end();
    primary_.store.fail_attach = Error{kind, 0, "attachments/2.0"};
    EXPECT_FALSE(checkpoint_with(feed));
    EXPECT_FALSE(primary_.session->is_open());
    primary_.store.fail_attach.reset();
    ASSERT_DONE(primary_.open_session());
  }
  ASSERT_DONE(primary_.checkpoint());
}

}  // namespace
}  // namespace ckpt::test
