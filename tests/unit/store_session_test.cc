// SPDX-License-Identifier: Apache-2.0
// Sessions, batches and confirmations: what a store takes, and what it refuses.
#include <gtest/gtest.h>

#include "tests/unit/store_peer.h"

namespace ckpt::test {
namespace {

class StoreSession : public ::testing::Test {
 protected:
  void SetUp() override {
    ASSERT_DONE(peer_.open());
    ASSERT_DONE(peer_.begin());
  }
  MemoryDisk disk_;
  StorePeer peer_{disk_};
};

TEST_F(StoreSession, NewStoreSaysThatThereNeverWasACheckpoint) {
  const auto greeting = peer_.store().begin_session();
  ASSERT_TRUE(greeting);
  EXPECT_FALSE(greeting->last.has_value());
  EXPECT_FALSE(greeting->is_begun);
  EXPECT_EQ(greeting->incarnation, peer_.incarnation);
  const auto data = peer_.store().next_confirmed_data(0);
  ASSERT_TRUE(data);
  EXPECT_FALSE(data->has_value());
}

TEST_F(StoreSession, WhatArrivedOfAFirstCopyIsKept) {
  ASSERT_DONE(peer_.ship(1, {data(0, 2), zeroes(4, 2), data(15, 1)}));
  ASSERT_DONE(peer_.ship(2, {data(1, 1)}));
  const auto greeting = peer_.store().begin_session();
  ASSERT_TRUE(greeting);
  EXPECT_TRUE(greeting->is_begun);
  EXPECT_FALSE(greeting->last.has_value());
  EXPECT_EQ(peer_.store().status().pending_bytes, 0U);
  Content kept(kBlockBytes);
  ASSERT_DONE(peer_.store().read_confirmed(kBlockBytes, kept));
  EXPECT_EQ(kept, pattern(2, kBlockBytes));
  EXPECT_KIND(kNotFound, peer_.store().roll_back({peer_.timeline, {1}}, test_uuid(0x33)));
  EXPECT_TRUE(peer_.store().checkpoints()->empty());
  ASSERT_DONE(peer_.begin());
  ASSERT_DONE(peer_.ship(3, {zeroes(0, 1), data(2, 1)}));
  ASSERT_DONE(peer_.checkpoint(3));
  peer_.expect_exact();
  EXPECT_FALSE(peer_.store().begin_session()->is_begun);
}

TEST_F(StoreSession, WhatIsKeptOfAFirstCopyIsDurableWithTheCheckpoint) {
  ASSERT_DONE(peer_.ship(1, {data(0, 2), data(15, 1)}));
  ASSERT_DONE(peer_.begin());
  ASSERT_DONE(peer_.ship(1, {data(2, 1)}));
  ASSERT_DONE(peer_.checkpoint(1));
  disk_.lose_power(0);
  ASSERT_DONE(peer_.open());
  peer_.expect_exact();
}

// That may have had a failed sync: what is cached is not what is kept.
TEST_F(StoreSession, NotWhatAnEarlierLifeLeftOfAFirstCopy) {
  ASSERT_DONE(peer_.ship(1, {data(0, 2), data(15, 1)}));
  ASSERT_DONE(peer_.begin());
  ASSERT_DONE(peer_.open());
  EXPECT_FALSE(peer_.store().begin_session()->is_begun);
}

TEST_F(StoreSession, ConfirmedCheckpointIsReadBack) {
  ASSERT_DONE(peer_.ship(1, {data(0, 2), zeroes(4, 2), data(15, 1)}));
  ASSERT_DONE(peer_.checkpoint(1));
  peer_.expect_exact();
  ASSERT_DONE(peer_.store().finish_applying());
  EXPECT_EQ(peer_.store().status().applied, Epoch{1});
}

TEST_F(StoreSession, CheckpointOfNothingExists) {
  ASSERT_DONE(peer_.checkpoint(1));
  peer_.expect_exact();
  ASSERT_DONE(peer_.open());
  peer_.expect_exact();
  ASSERT_DONE(peer_.begin());
  ASSERT_DONE(peer_.checkpoint(9));
  peer_.expect_exact();
  ASSERT_DONE(peer_.store().finish_applying());
  EXPECT_TRUE(disk_.snapshot().contains("backup.img"));
  EXPECT_FALSE(disk_.snapshot().contains("journal/00000000000000000009"));
}

TEST_F(StoreSession, CoversVoidEpochsAndNoneOfLaterOnes) {
  ASSERT_DONE(peer_.ship(2, {data(0, 4)}));
  ASSERT_DONE(peer_.ship(4, {data(1, 1)}));
  ASSERT_DONE(peer_.ship(3, {data(0, 2)}));
  ASSERT_DONE(peer_.checkpoint(3));
  peer_.expect_exact();
  ASSERT_DONE(peer_.checkpoint(4));
  peer_.expect_exact();
}

TEST_F(StoreSession, AppliesInTheOrderOfSequenceNumbersNotOfArrival) {
  ASSERT_DONE(peer_.ship_as(20, 1, {data(0, 4)}));
  ASSERT_DONE(peer_.ship_as(10, 1, {zeroes(0, 8)}));
  ASSERT_DONE(peer_.checkpoint(1));
  peer_.expect_exact();
  ASSERT_DONE(peer_.ship_as(40, 2, {zeroes(0, 2)}));
  ASSERT_DONE(peer_.ship_as(30, 2, {data(0, 8)}));
  ASSERT_DONE(peer_.checkpoint(2));
  peer_.expect_exact();
}

TEST_F(StoreSession, NewSessionDropsWhatIsPending) {
  ASSERT_DONE(peer_.ship(1, {data(0, 4)}));
  ASSERT_DONE(peer_.checkpoint(1));
  ASSERT_DONE(peer_.ship(2, {data(0, 4)}));
  EXPECT_GT(peer_.store().status().pending_bytes, 0U);
  ASSERT_DONE(peer_.begin());
  EXPECT_EQ(peer_.store().status().pending_bytes, 0U);
  ASSERT_DONE(peer_.ship(2, {data(3, 1)}));
  ASSERT_DONE(peer_.checkpoint(2));
  peer_.expect_exact();
}

TEST_F(StoreSession, ReceivesNothingBeforeAnIncarnationIsAccepted) {
  ASSERT_DONE(peer_.store().begin_session());
  EXPECT_KIND(kInvalid, peer_.ship(1, {data(0, 1)}));
  EXPECT_KIND(kInvalid, peer_.checkpoint(1));
  EXPECT_KIND(kInvalid, peer_.store().accept(0));
  ASSERT_DONE(peer_.store().accept(8));
  EXPECT_KIND(kInvalid, peer_.ship(1, {data(0, 1)}));  // of incarnation 7
}

TEST_F(StoreSession, RefusesBatchesThatDoNotBelong) {
  const auto refused = [this](auto change) {
    ASSERT_DONE(peer_.begin());
    EncodedBatch batch = peer_.batch(5, 2, {data(0, 1)});
    change(batch);
    EXPECT_KIND(kInvalid, peer_.store().receive(batch));
    // And the session is over.
    EXPECT_KIND(kInvalid, peer_.ship(2, {data(0, 1)}));
  };
  ASSERT_DONE(peer_.ship(1, {data(0, 1)}));
  ASSERT_DONE(peer_.checkpoint(1));
  refused([](EncodedBatch& batch) { batch.header.volume = test_uuid(9); });
  refused([](EncodedBatch& batch) { batch.header.timeline = {}; });
  refused([](EncodedBatch& batch) { batch.header.incarnation = 8; });
  refused([](EncodedBatch& batch) { batch.header.epoch = {1}; });
  refused([](EncodedBatch& batch) { batch.header.epoch = {0}; });
  ASSERT_DONE(peer_.begin());
  ASSERT_DONE(peer_.ship_as(5, 2, {data(0, 1)}));
  EXPECT_KIND(kInvalid, peer_.ship_as(5, 2, {data(1, 1)}));
  ASSERT_DONE(peer_.begin());
  ASSERT_DONE(peer_.ship(2, {data(0, 1)}));
  peer_.timeline = test_uuid(0x33);
  EXPECT_KIND(kInvalid, peer_.ship(2, {data(1, 1)}));
}

TEST_F(StoreSession, RefusesDamagedPayload) {
  EncodedBatch batch = peer_.batch(5, 1, {data(0, 1)});
  batch.payload[100] ^= std::byte{1};
  EXPECT_KIND(kCorrupt, peer_.store().receive(batch));
  EXPECT_EQ(peer_.store().status().state, "connected");
  ASSERT_DONE(peer_.begin());
  ASSERT_DONE(peer_.ship(1, {data(0, 1)}));
  ASSERT_DONE(peer_.checkpoint(1));
  peer_.expect_exact();
}

TEST_F(StoreSession, RefusesConfirmationOfAnythingElseThanWhatArrived) {
  const auto refused = [this](ErrorKind kind, auto change) {
    ASSERT_DONE(peer_.begin());
    ASSERT_DONE(peer_.ship(2, {data(0, 1)}));
    ASSERT_DONE(peer_.ship(3, {data(1, 1)}));
    Confirmation confirmation = peer_.confirmation(3);
    change(confirmation);
    const auto confirmed = peer_.store().confirm(confirmation);
    ASSERT_FALSE(confirmed);
    EXPECT_EQ(confirmed.error().kind, kind);
    peer_.expect_exact();
  };
  ASSERT_DONE(peer_.ship(1, {data(0, 8)}));
  ASSERT_DONE(peer_.checkpoint(1));
  refused(ErrorKind::kCorrupt, [](Confirmation& c) { c.covered.pop_back(); });
  refused(ErrorKind::kCorrupt, [](Confirmation& c) { c.covered[0].chain.bytes[3] ^= 1; });
  refused(ErrorKind::kCorrupt, [](Confirmation& c) { c.covered.push_back({{4}, {}}); });
  refused(ErrorKind::kCorrupt, [](Confirmation& c) { c.checkpoint.digest.bytes[0] ^= 1; });
  refused(ErrorKind::kInvalid, [](Confirmation& c) { c.checkpoint.parent.number = {0}; });
  refused(ErrorKind::kInvalid,
          [](Confirmation& c) { c.checkpoint.parent.timeline = test_uuid(5); });
  refused(ErrorKind::kInvalid, [](Confirmation& c) { c.checkpoint.id.number = {1}; });
  refused(ErrorKind::kInvalid, [](Confirmation& c) { c.checkpoint.id.timeline = test_uuid(5); });
  refused(ErrorKind::kInvalid, [](Confirmation& c) { c.checkpoint.name.resize(256); });
  refused(ErrorKind::kInvalid, [](Confirmation& c) { c.checkpoint.message.resize(4097); });
  ASSERT_DONE(peer_.begin());
  ASSERT_DONE(peer_.ship(3, {data(0, 1)}));
  ASSERT_DONE(peer_.checkpoint(3));
  peer_.expect_exact();
}

TEST_F(StoreSession, RollBackForksTheTimelineAndCanBeRepeated) {
  ASSERT_DONE(peer_.ship(1, {data(0, 4)}));
  ASSERT_DONE(peer_.checkpoint(1));
  ASSERT_DONE(peer_.ship(2, {data(0, 8)}));
  const CheckpointId from = peer_.last->checkpoint.id;
  EXPECT_KIND(kNotFound, peer_.store().roll_back({from.timeline, {2}}, test_uuid(0x33)));
  EXPECT_KIND(kNotFound, peer_.store().roll_back({test_uuid(4), {1}}, test_uuid(0x33)));
  EXPECT_KIND(kInvalid, peer_.store().roll_back(from, from.timeline));
  ASSERT_DONE(peer_.roll_back(test_uuid(0x33)));
  ASSERT_DONE(peer_.store().roll_back(from, test_uuid(0x33)));
  ASSERT_DONE(peer_.open());
  ASSERT_DONE(peer_.store().roll_back(from, test_uuid(0x33)));
  EXPECT_KIND(kNotFound, peer_.store().roll_back(from, test_uuid(0x44)));
  EXPECT_EQ(peer_.store().record().forks, std::vector<CheckpointId>{from});
  peer_.expect_exact();
  // A checkpoint goes on from there, whichever name its parent is given.
  ASSERT_DONE(peer_.begin());
  ASSERT_DONE(peer_.ship(3, {data(5, 1)}));
  Confirmation confirmation = peer_.confirmation(3);
  confirmation.checkpoint.parent = from;
  ASSERT_DONE(peer_.store().confirm(confirmation));
}

TEST_F(StoreSession, KeepsTheNewestForks) {
  ASSERT_DONE(peer_.checkpoint(1));
  for (uint8_t i = 0; i < 3; ++i) {
    ASSERT_DONE(peer_.roll_back(test_uuid(static_cast<uint8_t>(0x80 + i))));
  }
  EXPECT_EQ(peer_.store().record().forks.size(), 3U);
  StoreRecord record;
  record.last = peer_.last->checkpoint;
  for (size_t i = 0; i <= kForksMax; ++i) {
    record.fork_to(test_uuid(static_cast<uint8_t>(i % 250 + 1)));
  }
  EXPECT_EQ(record.forks.size(), kForksMax);
}

TEST_F(StoreSession, RefusesTheStoreOfAnotherVolumeOrSize) {
  StoreOptions options = peer_.options();
  options.volume = test_uuid(9);
  const auto other = Store::open(disk_.root(), options);
  ASSERT_FALSE(other);
  EXPECT_EQ(other.error().kind, ErrorKind::kInvalid);
  EXPECT_NE(other.error().context.find(test_uuid(9).to_string()), std::string::npos);
  EXPECT_NE(other.error().context.find(test_uuid(0x11).to_string()), std::string::npos);
  options = peer_.options();
  options.size_bytes += 512;
  EXPECT_KIND(kInvalid, Store::open(disk_.root(), options));
}

TEST(StoreOpen, RefusesADirectoryThatIsNotEmpty) {
  MemoryDisk disk;
  ASSERT_TRUE(disk.root()->open("thesis.tex", OpenMode::kCreate));
  StorePeer peer(disk);
  EXPECT_KIND(kInvalid, peer.open());
  EXPECT_EQ(disk.snapshot().size(), 1U);
}

TEST(StoreOpen, RefusesToStartAnewWhereOnlyTheRecordIsMissing) {
  MemoryDisk disk;
  StorePeer peer(disk);
  ASSERT_DONE(peer.open());
  ASSERT_DONE(peer.begin());
  ASSERT_DONE(peer.ship(1, {data(0, 1)}));
  ASSERT_DONE(peer.checkpoint(1));
  ASSERT_DONE(peer.store().finish_applying());
  ASSERT_DONE(disk.root()->remove("volume"));
  const auto before = disk.snapshot();
  EXPECT_KIND(kCorrupt, peer.open());
  EXPECT_EQ(disk.snapshot(), before);
}

TEST_F(StoreSession, TellsWhoeverAppliesThatThereIsWork) {
  int told = 0;
  peer_.store().set_work_listener([&told] { ++told; });
  EXPECT_FALSE(peer_.store().has_work());
  ASSERT_DONE(peer_.ship(1, {data(0, 1)}));
  EXPECT_EQ(told, 0);
  ASSERT_DONE(peer_.checkpoint(1));
  EXPECT_EQ(told, 1);
  EXPECT_TRUE(peer_.store().has_work());
  EXPECT_GT(peer_.store().status().confirmed_bytes, 0U);
  bool more = true;
  while (more) {
    const auto stepped = peer_.store().apply_some();
    ASSERT_TRUE(stepped);
    more = *stepped;
  }
  EXPECT_FALSE(peer_.store().has_work());
  EXPECT_EQ(peer_.store().status().confirmed_bytes, 0U);
  EXPECT_EQ(peer_.store().status().applied, Epoch{1});
}

TEST_F(StoreSession, ConfirmHelpsToApplyBeyondTheCap) {
  peer_.unapplied_bytes_max = 6 * kBlockBytes;
  ASSERT_DONE(peer_.open());
  ASSERT_DONE(peer_.begin());
  for (uint64_t number = 1; number <= 8; ++number) {
    ASSERT_DONE(peer_.ship(number, {data(number, 2)}));
    ASSERT_DONE(peer_.checkpoint(number));
    EXPECT_LE(peer_.store().status().confirmed_bytes, peer_.unapplied_bytes_max);
  }
  EXPECT_GT(peer_.store().status().applied.value, 0U);
  ASSERT_DONE(peer_.ship(9, {data(0, 12)}));  // larger than the cap by itself
  ASSERT_DONE(peer_.checkpoint(9));
  peer_.expect_exact();
}

TEST_F(StoreSession, CheckpointsThatWaitAreLimitedInNumber) {
  for (uint64_t number = 1; number <= 2 * kUnappliedCheckpointsMax; ++number) {
    ASSERT_DONE(peer_.checkpoint(number));
    EXPECT_LE(disk_.snapshot().size(), kUnappliedCheckpointsMax + 10);
  }
  peer_.expect_exact();
}

TEST_F(StoreSession, VoidEpochsAreLimitedInNumber) {
  for (uint64_t epoch = 1; epoch <= kPendingEpochsMax; ++epoch) {
    ASSERT_DONE(peer_.ship(epoch, {zeroes(0, 1)}));
  }
  EXPECT_KIND(kInvalid, peer_.ship(kPendingEpochsMax + 1, {zeroes(0, 1)}));
  ASSERT_DONE(peer_.begin());
  ASSERT_DONE(peer_.ship(kPendingEpochsMax + 1, {data(0, 1)}));
  ASSERT_DONE(peer_.checkpoint(kPendingEpochsMax + 1));
  peer_.expect_exact();
}

TEST_F(StoreSession, CompressedBatchesAreStoredAsTheyCome) {
  peer_.compression = {Codec::kZstd, 1};
  const EncodedBatch batch = peer_.batch(1, 1, {data(0, 15)});
  EXPECT_EQ(batch.header.codec, Codec::kZstd);
  ASSERT_DONE(peer_.ship(1, {data(0, 15)}));
  EXPECT_EQ(peer_.store().status().pending_bytes, batch.header.stored_bytes);
  ASSERT_DONE(peer_.checkpoint(1));
  ASSERT_DONE(peer_.open());
  peer_.expect_exact();
}

TEST(StoreVolumeFile, ARecordIsShownLast) {
  MemoryDisk disk;
  const auto directory = disk.root();
  StoreRecord record;
  record.volume = test_uuid(0x11);
  record.size_bytes = kBlockBytes;
  auto file = VolumeFile::create(*directory, record);
  ASSERT_DONE(file);
  uint64_t shown = 99;
  ASSERT_DONE((*file)->update([](StoreRecord& after) { after.incarnation = 5; },
                              [&] {
                                shown = (*file)->record().incarnation;
                                disk.lose_power(0);  // it is durable by now
                              }));
  EXPECT_EQ(shown, 0U);
  EXPECT_EQ((*file)->record().incarnation, 5U);
  const auto again = VolumeFile::open(*disk.root());
  ASSERT_DONE(again);
  EXPECT_EQ((*again)->record().incarnation, 5U);
}

}  // namespace
}  // namespace ckpt::test
