// SPDX-License-Identifier: Apache-2.0
// Exports: of exactly one checkpoint, each byte once, whatever is applied meanwhile.
#include <random>

#include "backupd/store/snapshot.h"
#include "tests/unit/memory_sink.h"
#include "tests/unit/store_peer.h"

namespace ckpt::test {
namespace {

constexpr uint64_t kExportedBlocks = 48;
constexpr uint64_t kBytes = (kExportedBlocks - 1) * kBlockBytes + 512;  // the last block is short

// An image that changes while a snapshot of it is handed over, in an order that a seed chooses.
class SnapshotTest : public ::testing::Test {
 protected:
  void SetUp() override {
    root_ = disk_.root();
    auto image = BackupImage::create(*root_, kBytes);
    ASSERT_DONE(image);
    image_ = std::move(*image);
  }
  BlockRange draw_blocks() {
    const uint64_t first = draw_() % kExportedBlocks;
    return {first, std::min(kExportedBlocks, first + 1 + draw_() % 7)};
  }
  Batch draw_batch() {
    Batch batch;
    batch.header.epoch = Epoch{++epoch_};
    const BlockRange blocks = draw_blocks();
    const bool is_data = draw_() % 3 > 0;
    batch.extents = {is_data ? data(blocks.first, blocks.count(), kBytes)
                             : zeroes(blocks.first, blocks.count(), kBytes)};
    if (is_data) {
      batch.data = pattern(draw_(), batch.extents[0].length);
    }
    return batch;
  }
  void change(Snapshot* snapshot) {
    Batch batch = draw_batch();
    if (snapshot != nullptr) {
      snapshot->preserve(batch.extents);
    }
    ASSERT_DONE(image_->apply(batch));
  }
  Content read() {
    Content content(kBytes);
    EXPECT_TRUE(image_->read(0, content));
    return content;
  }

  std::mt19937_64 draw_;
  uint64_t epoch_ = 0;
  MemoryDisk disk_;
  std::unique_ptr<Directory> root_;
  std::unique_ptr<BackupImage> image_;
};

TEST_F(SnapshotTest, WhatChangesIsHandedOverFirst) {
  for (uint64_t seed = 1; seed <= 100; ++seed) {
    draw_.seed(seed);
    change(nullptr);
    change(nullptr);
    const Content before = read();
    MemorySink sink;
    Snapshot snapshot(*image_, kBytes, sink);
    for (Result<bool> more = true; *more;) {
      if (draw_() % 2 == 0) {
        change(&snapshot);
      }
      more = snapshot.step();
      ASSERT_DONE(more);
    }
    EXPECT_TRUE(sink.has_all()) << "seed " << seed;
    ASSERT_TRUE(sink.content == before) << "seed " << seed;
  }
}

TEST_F(SnapshotTest, HolesAreToldAsSuch) {
  Batch batch;
  batch.header.epoch = Epoch{1};
  batch.extents = {data(8, 2, kBytes)};
  batch.data = pattern(1, 2 * kBlockBytes);
  ASSERT_DONE(image_->apply(batch));
  MemorySink sink;
  Snapshot snapshot(*image_, kBytes, sink);
  for (Result<bool> more = true; *more; more = snapshot.step()) {
    ASSERT_DONE(more);
  }
  EXPECT_EQ(sink.zeroed_bytes, kBytes - 2 * kBlockBytes);
}

TEST_F(SnapshotTest, AnErrorWhileItPreservesEndsIt) {
  MemorySink sink;
  Snapshot snapshot(*image_, kBytes, sink);
  sink.on_take = [](ByteRange) -> Result<> { return fail(ErrorKind::kNoSpace, "full"); };
  change(&snapshot);
  sink.on_take = [](ByteRange) { return Result<>(); };
  EXPECT_KIND(kNoSpace, snapshot.step());
}

TEST_F(SnapshotTest, ItEndsWhereSomethingCannotWait) {
  change(nullptr);
  MemorySink sink;
  Snapshot snapshot(*image_, kBytes, sink, [] { return true; });
  snapshot.preserve({data(0, kExportedBlocks, kBytes)});
  EXPECT_FALSE(sink.checkpoint);
  EXPECT_KIND(kBusy, snapshot.step());
}

class ExportTest : public ::testing::Test {
 protected:
  ExportTest() : peer_(disk_) {}
  void SetUp() override {
    ASSERT_DONE(peer_.open());
    ASSERT_DONE(peer_.begin());
  }
  MemoryDisk disk_;
  StorePeer peer_;
  MemorySink sink_;
};

TEST_F(ExportTest, IsTheLastCheckpointAppliedOrNot) {
  ASSERT_DONE(peer_.ship(1, {data(0, 4), data(9, 1)}));
  ASSERT_DONE(peer_.checkpoint(1));
  ASSERT_DONE(peer_.ship(2, {zeroes(1, 2), data(15, 1)}));
  ASSERT_DONE(peer_.checkpoint(2));
  ASSERT_DONE(peer_.ship(3, {data(5, 1)}));  // pending
  ASSERT_DONE(peer_.store().export_checkpoint(std::nullopt, sink_));
  EXPECT_EQ(sink_.checkpoint->id.number, Epoch{2});
  EXPECT_TRUE(sink_.has_all());
  EXPECT_TRUE(sink_.content == peer_.last->content);
  MemorySink again;
  ASSERT_DONE(peer_.store().export_checkpoint(Epoch{2}, again));
  EXPECT_TRUE(again.content == peer_.last->content);
}

TEST_F(ExportTest, OfWhatIsNotKeptIsRefused) {
  EXPECT_KIND(kNotFound, peer_.store().export_checkpoint(std::nullopt, sink_));
  ASSERT_DONE(peer_.checkpoint(1));
  ASSERT_DONE(peer_.checkpoint(2));
  EXPECT_KIND(kNotFound, peer_.store().export_checkpoint(Epoch{1}, sink_));
  EXPECT_FALSE(sink_.checkpoint);
}

TEST_F(ExportTest, ThatFailsLeavesTheStoreAsItWas) {
  ASSERT_DONE(peer_.ship(1, {data(0, 4)}));
  ASSERT_DONE(peer_.checkpoint(1));
  sink_.on_take = [](ByteRange) -> Result<> { return fail(ErrorKind::kNoSpace, "full"); };
  EXPECT_KIND(kNoSpace, peer_.store().export_checkpoint(std::nullopt, sink_));
  ASSERT_DONE(peer_.ship(2, {data(3, 4)}));
  ASSERT_DONE(peer_.checkpoint(2));
  peer_.expect_exact();
  EXPECT_EQ(peer_.store().status().state, "connected");
}

TEST_F(ExportTest, OneAtATime) {
  ASSERT_DONE(peer_.ship(1, {data(0, 4)}));
  ASSERT_DONE(peer_.checkpoint(1));
  MemorySink other;
  Result<> second;
  sink_.on_take = [&](ByteRange) -> Result<> {
    second = second ? peer_.store().export_checkpoint(std::nullopt, other) : second;
    return {};
  };
  ASSERT_DONE(peer_.store().export_checkpoint(std::nullopt, sink_));
  EXPECT_KIND(kBusy, second);
  EXPECT_TRUE(sink_.content == peer_.last->content);
}

}  // namespace
}  // namespace ckpt::test
