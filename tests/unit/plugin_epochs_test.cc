// SPDX-License-Identifier: Apache-2.0
// Block locks and epoch objects, with real threads where order between threads is the promise.
#include <gtest/gtest.h>

#include <memory>
#include <thread>

#include "plugin/block_locks.h"
#include "plugin/epochs.h"

namespace ckpt {
namespace {

using std::chrono::milliseconds;

// Long enough for a thread that could run to have run.
void let_pieces_run() { std::this_thread::sleep_for(milliseconds(30)); }

TEST(BlockLocks, PiecesThatDoNotOverlapDoNotWait) {
  BlockLocks locks;
  const BlockLocks::Hold a(locks, {0, 10});
  const BlockLocks::Hold b(locks, {10, 20});
  const BlockLocks::Hold c(locks, {30, 31});
}

TEST(BlockLocks, AnOverlappingPieceWaits) {
  BlockLocks locks;
  std::atomic<bool> entered{false};
  auto first = std::make_unique<BlockLocks::Hold>(locks, BlockRange{0, 10});
  std::thread second([&] {
    const BlockLocks::Hold hold(locks, {9, 12});
    entered.store(true);
  });
  let_pieces_run();
  EXPECT_FALSE(entered.load());
  first.reset();
  second.join();
  EXPECT_TRUE(entered.load());
}

// The third overlaps only the second, which waits: it must wait too, or the second could starve.
TEST(BlockLocks, FirstComeIsFirstServed) {
  BlockLocks locks;
  std::atomic<int> order{0};
  int second_place = 0;
  int third_place = 0;
  auto first = std::make_unique<BlockLocks::Hold>(locks, BlockRange{0, 10});
  std::thread second([&] {
    const BlockLocks::Hold hold(locks, {5, 15});
    second_place = ++order;
    let_pieces_run();
  });
  let_pieces_run();
  std::thread third([&] {
    const BlockLocks::Hold hold(locks, {12, 20});
    third_place = ++order;
  });
  let_pieces_run();
  EXPECT_EQ(order.load(), 0);
  first.reset();
  second.join();
  third.join();
  EXPECT_EQ(second_place, 1);
  EXPECT_EQ(third_place, 2);
}

TEST(BlockLocks, NoTwoOverlappingHoldersUnderLoad) {
  BlockLocks locks;
  std::array<std::atomic<int>, 16> holders{};
  std::atomic<bool> clash{false};
  const auto work = [&](uint64_t seed) {
    for (uint64_t round = 0; round < 3000; ++round) {
      const uint64_t first = (seed * 31 + round * 7) % 14;
      const BlockRange range{first, first + 1 + round % 2};
      const BlockLocks::Hold hold(locks, range);
      for (uint64_t block = range.first; block < range.end; ++block) {
        clash.store(clash.load() || ++holders[block] != 1);
      }
      for (uint64_t block = range.first; block < range.end; ++block) {
        --holders[block];
      }
    }
  };
  std::vector<std::thread> threads;
  for (uint64_t seed = 0; seed < 4; ++seed) {
    threads.emplace_back(work, seed);
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
  EXPECT_FALSE(clash.load());
}

constexpr Geometry kSmallGeometry{.size_bytes = 256 * kBlockBytes,
                                  .region_bytes = 64 * kBlockBytes};

class EpochsTest : public testing::Test {
 protected:
  MapMemory first_{kSmallGeometry.map_bytes()};
  MapMemory second_{kSmallGeometry.map_bytes()};
  Epochs epochs_{kSmallGeometry, first_.bytes(), second_.bytes()};
};

TEST_F(EpochsTest, ACutInstallsTheNextNumberAndKeepsTheOldObject) {
  epochs_.set_number({7});
  epochs_.current().written.set({1, 2});
  epochs_.cut();
  EXPECT_EQ(epochs_.number(), Epoch{8});
  ASSERT_NE(epochs_.closed(), nullptr);
  EXPECT_EQ(epochs_.closed()->number.load(), 7U);
  EXPECT_TRUE(epochs_.closed()->written.any({1, 2}));
  EXPECT_EQ(epochs_.current().written.count(), 0U);
}

TEST_F(EpochsTest, AClosedEpochIsFrozenWhenItsWritersHaveLeft) {
  EpochObject& early = epochs_.enter();
  epochs_.cut();
  EpochObject& late = epochs_.enter();
  EXPECT_NE(&early, &late);
  EXPECT_FALSE(epochs_.is_frozen());
  epochs_.leave(late);
  EXPECT_FALSE(epochs_.is_frozen());
  epochs_.leave(early);
  EXPECT_TRUE(epochs_.is_frozen());
}

TEST_F(EpochsTest, NothingIsFrozenWhileNothingIsClosed) {
  EXPECT_FALSE(epochs_.is_frozen());
  EXPECT_EQ(epochs_.begin_preserve(), nullptr);
}

TEST_F(EpochsTest, DroppingForgetsTheMapsAndTheObjectIsUsedAgain) {
  epochs_.set_number({1});
  epochs_.current().written.set({1, 9});
  epochs_.current().unshipped.set({1, 9});
  EpochObject* const first = &epochs_.current();
  epochs_.cut();
  epochs_.drop_closed();
  EXPECT_EQ(epochs_.closed(), nullptr);
  EXPECT_EQ(first->written.count(), 0U);
  EXPECT_EQ(first->unshipped.count(), 0U);
  epochs_.cut();
  EXPECT_EQ(&epochs_.current(), first);
  EXPECT_EQ(epochs_.number(), Epoch{3});
}

TEST_F(EpochsTest, MergingAddsTheMapsToTheCurrentOnes) {
  epochs_.current().written.set({1, 4});
  epochs_.current().unshipped.set({2, 3});
  epochs_.cut();
  epochs_.current().written.set({3, 6});
  epochs_.current().unshipped.set({5, 6});
  epochs_.merge_closed();
  EXPECT_EQ(epochs_.closed(), nullptr);
  EXPECT_EQ(epochs_.current().written.next_run({0, 64}), (BlockRange{1, 6}));
  EXPECT_EQ(epochs_.current().unshipped.count(), 2U);
  EXPECT_TRUE(epochs_.current().unshipped.any({2, 3}));
}

TEST_F(EpochsTest, WhoPreservesHoldsTheObjectUntilItsCopyIsHandedOver) {
  epochs_.cut();
  EpochObject* const closed = epochs_.begin_preserve();
  ASSERT_NE(closed, nullptr);
  std::atomic<bool> dropped{false};
  std::thread dropper([&] {
    epochs_.drop_closed();
    dropped.store(true);
  });
  let_pieces_run();
  EXPECT_FALSE(dropped.load());
  epochs_.end_preserve(*closed);
  dropper.join();
  EXPECT_EQ(epochs_.begin_preserve(), nullptr);
}

TEST_F(EpochsTest, WaitingEndsWhenTheLastWriterLeaves) {
  EpochObject& epoch = epochs_.enter();
  epochs_.cut();
  std::thread writer([&] {
    let_pieces_run();
    epochs_.leave(epoch);
  });
  const auto began = std::chrono::steady_clock::now();
  while (!epochs_.is_frozen() && std::chrono::steady_clock::now() - began < milliseconds(9000)) {
    epochs_.wait_frozen(milliseconds(10000));
  }
  EXPECT_LT(std::chrono::steady_clock::now() - began, milliseconds(9000));
  writer.join();
}

// Writers set bits in the object that they reference; every bit must be in the object that the cut
// closed, or in the current one, once its writers have left: none in an object that was used again.
class EpochsStressTest : public EpochsTest {
 protected:
  // Each of two writers sets its own blocks, one a turn, and counts them.
  void write(uint64_t first) {
    std::atomic<uint64_t>& turns = turns_[first / 128];
    for (uint64_t block = first; !stop_.load(); block = (block + 1) % 128 + first) {
      EpochObject& epoch = epochs_.enter();
      const uint64_t number = epoch.number.load();
      epoch.written.set({block, block + 1});
      wrong_.store(wrong_.load() || epoch.number.load() != number);
      epochs_.leave(epoch);
      ++turns;
    }
  }
  void start() {
    for (const uint64_t first : std::initializer_list<uint64_t>{0, 128}) {
      writers_.emplace_back([this, first] { write(first); });
    }
  }
  void stop() {
    stop_.store(true);
    for (std::thread& writer : writers_) {
      writer.join();
    }
  }
  void cut_and_wait() {
    epochs_.cut();
    while (!epochs_.is_frozen()) {
      epochs_.wait_frozen(milliseconds(20));
    }
  }

  std::atomic<bool> stop_{false};
  std::atomic<bool> wrong_{false};
  std::array<std::atomic<uint64_t>, 2> turns_{};
  std::vector<std::thread> writers_;
};

TEST_F(EpochsStressTest, NoReferenceIsToAnObjectThatIsUsedAgain) {
  start();
  for (int round = 0; round < 500 && !HasFailure(); ++round) {
    cut_and_wait();
    // A writer that entered late must have seen that the object is closed, and have left it alone.
    const uint64_t frozen = epochs_.closed()->written.count();
    std::this_thread::yield();
    EXPECT_EQ(epochs_.closed()->written.count(), frozen);
    epochs_.drop_closed();
  }
  stop();
  EXPECT_FALSE(wrong_.load());
  EXPECT_EQ(epochs_.current().writers.load(), 0U);
}

// Voiding while writers come and go: whoever looks in at the closed object for an instant, and goes
// to the current one, is no reason to stop the server.
TEST_F(EpochsStressTest, VoidEpochsLoseNoBlockWhileWritersComeAndGo) {
  start();
  for (int round = 0; round < 100000; ++round) {
    cut_and_wait();
    epochs_.merge_closed();
  }
  stop();
  EXPECT_FALSE(wrong_.load());
  EXPECT_EQ(epochs_.current().written.count(),
            std::min<uint64_t>(turns_[0].load(), 128) + std::min<uint64_t>(turns_[1].load(), 128));
}

}  // namespace
}  // namespace ckpt
