// SPDX-License-Identifier: Apache-2.0
// Operations that fail, and space that runs out: no success that is not durable, and a way back
// where there is one.
#include <cerrno>

#include "backupd/store/journal_file.h"
#include "tests/unit/store_peer.h"

namespace ckpt::test {
namespace {

// Ends at the first error.
Result<> make_history(StorePeer& peer) {
  CKPT_TRY(peer.begin());
  CKPT_TRY(peer.ship(1, {data(0, 6)}));
  CKPT_TRY(peer.attach(1, "memory", 4000));
  CKPT_TRY(peer.checkpoint(1));
  CKPT_TRY(peer.ship(2, {zeroes(0, 2), data(7, 2)}));
  CKPT_TRY(peer.ship(3, {data(1, 1)}));
  CKPT_TRY(peer.attach(2, "memory", 4000));
  CKPT_TRY(peer.attach(2, "state", 10));
  CKPT_TRY(peer.checkpoint(2));
  CKPT_TRY(peer.checkpoint(3));
  CKPT_TRY(peer.store().finish_applying());
  CKPT_TRY(peer.ship(4, {data(1, 3)}));
  CKPT_TRY(peer.roll_back(test_uuid(0x33)));
  CKPT_TRY(peer.ship(5, {data(15, 1)}));
  CKPT_TRY(peer.checkpoint(5));
  return peer.store().finish_applying();
}

TEST(StoreFault, NothingIsAnsweredAfterAnErrorUntilOpenedAgain) {
  for (uint64_t nth = 1;; ++nth) {
    SCOPED_TRACE("operation " + std::to_string(nth));
    MemoryDisk disk;
    StorePeer peer(disk);
    ASSERT_DONE(peer.open());
    disk.fail_operation(nth, EIO);
    const auto ended = make_history(peer);
    if (ended && disk.operations() < nth) {
      EXPECT_GT(nth, 50U);
      break;
    }
    if (ended) {
      peer.expect_exact();
      continue;  // an attachment of before that could not be unlinked
    }
    EXPECT_EQ(peer.store().status().state, "failed");
    EXPECT_FALSE(peer.store().status().error.empty());
    EXPECT_FALSE(peer.store().begin_session());
    EXPECT_FALSE(peer.store().apply_some());
    EXPECT_FALSE(peer.ship(9, {data(0, 1)}));
    // A machine that loses power now must still have what was answered.
    peer.close();
    disk.lose_power(nth % 3);
    ASSERT_DONE(peer.open());
    ASSERT_NO_FATAL_FAILURE(peer.expect_exact());
  }
}

class LongEpochTest : public testing::Test {
 protected:
  static constexpr uint64_t kBatchBytes = uint64_t{4} << 20U;

  LongEpochTest() {
    disk_.set_watcher([this](const MemoryOperation& operation) {
      if (operation.act == "let go") {
        let_go_.push_back(operation.range);
      }
    });
    journal_ = std::move(*JournalFile::create(*root_, {test_uuid(1), test_uuid(2), Epoch{1}, 7}));
  }
  Result<> append() {
    const BatchHeader identity{.volume = test_uuid(1),
                               .timeline = test_uuid(2),
                               .epoch = Epoch{1},
                               .sequence = ++sequence_};
    return journal_->append(
        encode_batch(identity, {{0, kBatchBytes}}, content_, {Codec::kNone, 1}));
  }
  void fill_cache() {
    while (journal_->end_offset() <= kCachedBytes + 3 * kBatchBytes) {
      ASSERT_DONE(append());
    }
  }

  MemoryDisk disk_;
  std::unique_ptr<Directory> root_ = disk_.root();
  std::unique_ptr<JournalFile> journal_;
  Content content_ = pattern(1, kBatchBytes);
  uint64_t sequence_ = 0;
  std::vector<ByteRange> let_go_;
};

// What came first stays in memory, and what is just being written out.
TEST_F(LongEpochTest, FillsNoMoreMemoryThanIsMeantForIt) {
  ASSERT_NO_FATAL_FAILURE(fill_cache());
  for (int i = 0; i < 5; ++i) {
    ASSERT_DONE(append());
  }
  uint64_t end_offset = kCachedBytes;
  for (const ByteRange& range : let_go_) {
    EXPECT_EQ(range.offset, end_offset);
    end_offset = range.end();
  }
  EXPECT_LT(journal_->end_offset(), end_offset + 5 * kBatchBytes);
  BatchBuffer buffer;
  for (const auto& [sequence, batch] : journal_->batches()) {
    ASSERT_DONE(journal_->read_into(buffer, batch, kBatchBytes));
    EXPECT_EQ(buffer.batch.data, content_);
  }
  EXPECT_EQ(let_go_.back().end(), journal_->end_offset());
}

// The kernel tells of a write that failed behind our back once, and not at the sync.
TEST_F(LongEpochTest, AFailureToWriteOutIsFinal) {
  ASSERT_NO_FATAL_FAILURE(fill_cache());
  for (const size_t before = let_go_.size(); let_go_.size() == before;) {
    ASSERT_DONE(append());
  }
  // From here on every fourth append does the same: the last it does is to let go.
  disk_.count_from_here();
  for (int i = 0; i < 4; ++i) {
    ASSERT_DONE(append());
  }
  disk_.fail_operation(disk_.operations(), EIO);
  for (int i = 0; i < 3; ++i) {
    ASSERT_DONE(append());
  }
  const auto appended = append();
  ASSERT_FALSE(appended);
  EXPECT_EQ(appended.error().kind, ErrorKind::kIo);
  EXPECT_NE(appended.error().message().find("let go"), std::string::npos);
  EXPECT_FALSE(journal_->sync());
}

// By the same daemon: what a failed sync has lost no later sync writes, so no file that was left is
// used.
TEST(StoreFault, ACreationThatFailedIsBegunAgainAndLasts) {
  for (uint64_t nth = 1;; ++nth) {
    SCOPED_TRACE("operation " + std::to_string(nth));
    MemoryDisk disk;
    StorePeer peer(disk);
    disk.fail_operation(nth, EIO);
    if (peer.open()) {
      EXPECT_GT(nth, 10U);
      break;
    }
    std::string first_act;  // on the image
    disk.set_watcher([&first_act](const MemoryOperation& operation) {
      if (operation.path.ends_with("backup.img") && first_act.empty()) {
        first_act = operation.act;
      }
    });
    ASSERT_DONE(peer.open());
    // (One that was made to its end is only synced.)
    EXPECT_TRUE(first_act == "create" || first_act == "remove" || first_act == "sync") << first_act;
    disk.set_watcher({});
    ASSERT_DONE(peer.begin());
    ASSERT_DONE(peer.ship(1, {data(0, 6)}));
    ASSERT_DONE(peer.checkpoint(1));
    disk.lose_power(0);
    ASSERT_DONE(peer.open());
    ASSERT_NO_FATAL_FAILURE(peer.expect_exact());
  }
}

TEST(StoreFault, ErrorsWhileOpeningAreReportedAndHarmless) {
  for (uint64_t nth = 1;; ++nth) {
    SCOPED_TRACE("operation " + std::to_string(nth));
    MemoryDisk disk;
    StorePeer peer(disk);
    ASSERT_DONE(peer.open());
    ASSERT_DONE(peer.begin());
    ASSERT_DONE(peer.ship(1, {data(0, 6)}));
    ASSERT_DONE(peer.checkpoint(1));
    ASSERT_DONE(peer.ship(2, {data(0, 6)}));
    disk.fail_operation(nth, EIO);
    const bool opened = peer.open().has_value();
    disk.lose_power(nth % 3);
    ASSERT_DONE(peer.open());
    ASSERT_NO_FATAL_FAILURE(peer.expect_exact());
    if (opened) {
      break;
    }
  }
}

TEST(StoreFault, WantOfSpaceAtAnyOperationIsRecoverableOrFinal) {
  uint64_t recovered = 0;
  for (uint64_t nth = 1;; ++nth) {
    SCOPED_TRACE("operation " + std::to_string(nth));
    MemoryDisk disk;
    StorePeer peer(disk);
    ASSERT_DONE(peer.open());
    disk.fail_operation(nth, ENOSPC);
    const auto ended = make_history(peer);
    if (ended && disk.operations() < nth) {
      break;
    }
    if (ended) {
      continue;  // there was another way
    }
    EXPECT_EQ(peer.store().status().state, "failed");
    disk.count_from_here();
    if (ended.error().kind == ErrorKind::kNoSpace && peer.begin()) {
      // The same process goes on where it can.
      ++recovered;
      ASSERT_NO_FATAL_FAILURE(peer.expect_exact());
      ASSERT_DONE(peer.store().finish_applying());
      ASSERT_DONE(peer.begin());
      ASSERT_DONE(peer.ship(20, {data(0, 3)}));
      ASSERT_DONE(peer.checkpoint(20));
      EXPECT_EQ(peer.store().status().state, "connected");
      ASSERT_NO_FATAL_FAILURE(peer.expect_exact());
    }
    peer.close();
    disk.lose_power(nth % 3);
    ASSERT_DONE(peer.open());
    ASSERT_NO_FATAL_FAILURE(peer.expect_exact());
  }
  EXPECT_GT(recovered, 10U);
}

class StoreSpace : public ::testing::Test {
 protected:
  static constexpr uint64_t kDiskBytes = uint64_t{4} << 20U;
  Extent blocks(uint64_t first, uint64_t count) { return data(first, count, kDiskBytes); }
  Extent holes(uint64_t first, uint64_t count) { return zeroes(first, count, kDiskBytes); }
  void SetUp() override {
    ASSERT_DONE(peer_.open());
    ASSERT_DONE(peer_.begin());
  }
  MemoryDisk disk_;
  StorePeer peer_{disk_, kDiskBytes};
};

TEST_F(StoreSpace, FullDiskDropsPendingAndComesBack) {
  ASSERT_DONE(peer_.ship(1, {blocks(0, 16)}));
  ASSERT_DONE(peer_.checkpoint(1));
  ASSERT_DONE(peer_.store().finish_applying());
  disk_.set_capacity(disk_.used_bytes() + 32 * kBlockBytes);
  EXPECT_KIND(kNoSpace, peer_.ship(2, {blocks(100, 64)}));
  EXPECT_EQ(peer_.store().status().state, "failed");
  EXPECT_EQ(peer_.store().status().pending_bytes, 0U);
  EXPECT_KIND(kNoSpace, peer_.checkpoint(2));  // not as if nothing had been sent
  peer_.expect_exact();
  disk_.set_capacity(std::nullopt);
  ASSERT_DONE(peer_.begin());
  ASSERT_DONE(peer_.ship(2, {blocks(100, 64)}));
  EXPECT_EQ(peer_.store().status().state, "connected");
  ASSERT_DONE(peer_.checkpoint(2));
  peer_.expect_exact();
}

TEST_F(StoreSpace, SmallBatchFitsWhereAStepDoesNot) {
  disk_.set_capacity(disk_.used_bytes() + 40 * kBlockBytes);
  ASSERT_DONE(peer_.ship(1, {blocks(0, 8)}));
  ASSERT_DONE(peer_.checkpoint(1));
  peer_.expect_exact();
}

TEST_F(StoreSpace, ApplyingNeedsNoSpaceThatWasNotReserved) {
  ASSERT_DONE(peer_.ship(1, {blocks(0, 64)}));
  ASSERT_DONE(peer_.checkpoint(1));
  ASSERT_DONE(peer_.ship(2, {blocks(10, 20)}));
  disk_.set_capacity(disk_.used_bytes());
  // Zeroes come first in the order of application, and must not give back what epoch 2 will need.
  ASSERT_DONE(peer_.store().finish_applying());
  ASSERT_DONE(peer_.checkpoint(2));
  ASSERT_DONE(peer_.store().finish_applying());
  peer_.expect_exact();
}

TEST_F(StoreSpace, ApplyingScatteredBlocksNeedsNoSpaceThatWasNotReserved) {
  ASSERT_DONE(peer_.ship(1, {blocks(3, 1), blocks(7, 2), blocks(40, 1)}));
  ASSERT_DONE(peer_.checkpoint(1));
  disk_.set_capacity(disk_.used_bytes());
  ASSERT_DONE(peer_.store().finish_applying());
  peer_.expect_exact();
}

TEST_F(StoreSpace, PunchingKeepsWhatLaterDataHasReserved) {
  ASSERT_DONE(peer_.ship(1, {blocks(0, 64)}));
  ASSERT_DONE(peer_.checkpoint(1));
  ASSERT_DONE(peer_.store().finish_applying());
  ASSERT_DONE(peer_.ship(2, {holes(0, 64)}));
  ASSERT_DONE(peer_.checkpoint(2));
  ASSERT_DONE(peer_.ship(3, {blocks(8, 16)}));
  uint64_t punched = 0;
  disk_.set_watcher([&punched](const MemoryOperation& operation) {
    punched += operation.act == "punch" ? operation.range.length : 0;
  });
  ASSERT_DONE(peer_.store().finish_applying());
  EXPECT_EQ(punched, 48 * kBlockBytes);
  disk_.set_capacity(disk_.used_bytes());
  ASSERT_DONE(peer_.checkpoint(3));
  ASSERT_DONE(peer_.store().finish_applying());
  peer_.expect_exact();
}

TEST_F(StoreSpace, FullyAllocatedImageCostsNoCalls) {
  ASSERT_DONE(peer_.ship(1, {blocks(0, 1024)}));
  ASSERT_DONE(peer_.checkpoint(1));
  ASSERT_DONE(peer_.open());
  ASSERT_DONE(peer_.store().finish_applying());
  ASSERT_DONE(peer_.begin());
  uint64_t allocations = 0;
  disk_.set_watcher([&allocations](const MemoryOperation& operation) {
    allocations += operation.act == "allocate" && operation.path == "backup.img" ? 1 : 0;
  });
  ASSERT_DONE(peer_.ship(2, {blocks(0, 1024)}));
  EXPECT_EQ(allocations, 0U);
}

TEST_F(StoreSpace, ReserveIsGivenUpAndMadeAgain) {
  const uint64_t reserved = reserve_bytes(kDiskBytes);
  EXPECT_GT(reserved, 0U);
  ASSERT_DONE(peer_.ship(1, {blocks(0, 8)}));
  ASSERT_DONE(peer_.checkpoint(1));
  ASSERT_DONE(peer_.store().finish_applying());
  const uint64_t before = disk_.used_bytes();
  ASSERT_DONE(peer_.ship(2, {blocks(100, 200)}));
  disk_.set_capacity(disk_.used_bytes());
  ASSERT_DONE(peer_.store().free_reserve());
  EXPECT_EQ(disk_.used_bytes(), before - reserved);  // journal and reservations too
  EXPECT_EQ(peer_.store().status().state, "failed");
  EXPECT_KIND(kNoSpace, peer_.ship(2, {blocks(0, 1)}));
  disk_.set_capacity(before - reserved / 2);
  ASSERT_DONE(peer_.begin());
  EXPECT_KIND(kNoSpace, peer_.ship(2, {blocks(0, 1)}));
  peer_.expect_exact();
  disk_.set_capacity(std::nullopt);
  ASSERT_DONE(peer_.begin());
  ASSERT_DONE(peer_.ship(2, {blocks(0, 1)}));
  ASSERT_DONE(peer_.checkpoint(2));
  EXPECT_EQ(peer_.store().status().state, "connected");
  EXPECT_TRUE(disk_.snapshot().contains("reserve"));
  peer_.expect_exact();
}

TEST_F(StoreSpace, GivingUpTheReserveTouchesNothingThatIsConfirmed) {
  ASSERT_DONE(peer_.ship(1, {blocks(0, 8)}));
  ASSERT_DONE(peer_.ship(1, {blocks(8, 8)}));
  ASSERT_DONE(peer_.checkpoint(1));
  ASSERT_DONE(peer_.open());  // what was reserved in an earlier life is not known to be
  ASSERT_DONE(peer_.begin());
  ASSERT_DONE(peer_.ship(2, {blocks(4, 20)}));
  ASSERT_DONE(peer_.store().apply_some());
  uint64_t punched = 0;
  disk_.set_watcher([&punched](const MemoryOperation& operation) {
    punched += operation.act == "punch" ? operation.range.length : 0;
  });
  ASSERT_DONE(peer_.store().free_reserve());
  EXPECT_EQ(punched, 8 * kBlockBytes);  // those beyond epoch 1's, written or not
  peer_.expect_exact();
  ASSERT_DONE(peer_.open());
  peer_.expect_exact();
}

TEST_F(StoreSpace, BlocksReservedWhileTheyAreWrittenAreNotGivenBack) {
  ASSERT_DONE(peer_.ship(1, {blocks(0, 8)}));
  ASSERT_DONE(peer_.checkpoint(1));
  ASSERT_DONE(peer_.open());
  ASSERT_DONE(peer_.begin());
  bool is_first = true;
  disk_.set_watcher([&](const MemoryOperation& operation) {
    if (operation.act == "write" && operation.path == "backup.img" && is_first) {
      is_first = false;
      ASSERT_DONE(peer_.ship(2, {blocks(0, 8)}));  // as the session's thread would, just now
    }
  });
  ASSERT_DONE(peer_.store().finish_applying());
  ASSERT_DONE(peer_.store().free_reserve());
  EXPECT_FALSE(is_first);
  peer_.expect_exact();
}

TEST_F(StoreSpace, ZeroesThatArriveLateDoNotGiveBackSpaceOfNewerData) {
  ASSERT_DONE(peer_.ship_as(20, 1, {blocks(0, 8)}));
  ASSERT_DONE(peer_.ship_as(10, 1, {holes(0, 16)}));
  ASSERT_DONE(peer_.checkpoint(1));
  uint64_t punched = 0;
  disk_.set_watcher([&punched](const MemoryOperation& operation) {
    punched += operation.act == "punch" ? operation.range.length : 0;
  });
  peer_.expect_exact();
  EXPECT_EQ(punched, 8 * kBlockBytes);
}

TEST_F(StoreSpace, OlderDataIsNotWrittenAgainOnceAppliedIsRecorded) {
  ASSERT_DONE(peer_.ship(1, {blocks(0, 1)}));
  ASSERT_DONE(peer_.checkpoint(1));
  ASSERT_DONE(peer_.ship(2, {blocks(0, 1)}));
  ASSERT_DONE(peer_.checkpoint(2));
  // After it the journal files are unlinked; the first of that fails.
  uint64_t acts = 0;
  disk_.set_watcher([&](const MemoryOperation& operation) {
    acts += operation.path.starts_with("volume") ? 1 : 0;
    if (acts == 4) {
      acts = 5;
      disk_.fail_operation(1, ENOSPC);
    }
  });
  EXPECT_KIND(kNoSpace, peer_.store().finish_applying());
  EXPECT_EQ(peer_.store().status().applied, Epoch{2});
  ASSERT_DONE(peer_.store().apply_some());
  peer_.close();
  disk_.lose_power(1);
  ASSERT_DONE(peer_.open());
  peer_.expect_exact();
}

TEST_F(StoreSpace, ApplyThatFindsNoSpaceIsDoneAgain) {
  ASSERT_DONE(peer_.ship(1, {blocks(0, 32)}));
  ASSERT_DONE(peer_.checkpoint(1));
  peer_.close();
  disk_.lose_power(0);  // and the reservation in the image with it, on a real disk
  ASSERT_DONE(peer_.open());
  disk_.fail_operation(1, ENOSPC);
  EXPECT_KIND(kNoSpace, peer_.store().apply_some());
  EXPECT_EQ(peer_.store().status().state, "failed");
  EXPECT_TRUE(peer_.store().has_work());
  ASSERT_DONE(peer_.store().finish_applying());
  EXPECT_EQ(peer_.store().status().state, "connected");
  peer_.expect_exact();
}

}  // namespace
}  // namespace ckpt::test
