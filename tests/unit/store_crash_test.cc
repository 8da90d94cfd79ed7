// SPDX-License-Identifier: Apache-2.0
// The machine stops at every single operation of a history, and at every one of the recovery after
// it: what was answered is there, exactly; what was not is there exactly, or not at all.
#include "tests/unit/store_peer.h"

namespace ckpt::test {
namespace {

// Seeds of MemoryDisk::lose_power: nothing kept, all kept, and some of it.
constexpr uint64_t kSeeds[] = {0, 1, 2, 3, 4};
constexpr uint64_t kAnySeed = 5;

Result<> apply_steps(StorePeer& peer, int count) {
  for (int i = 0; i < count; ++i) {
    CKPT_TRY(peer.store().apply_some());
  }
  return {};
}

Result<> begin_history(StorePeer& peer) {
  CKPT_TRY(peer.open());
  CKPT_TRY(peer.begin());
  CKPT_TRY(peer.ship(1, {data(0, 4), data(15, 1)}));
  CKPT_TRY(peer.ship(1, {data(3, 3), zeroes(8, 2)}));
  CKPT_TRY(peer.attach(1, "memory", 7000));
  CKPT_TRY(peer.attach(1, "registers", 10));
  CKPT_TRY(peer.checkpoint(1));
  CKPT_TRY(apply_steps(peer, 3));
  // A void epoch, blocks of the next one among those of this, and two checkpoints that wait.
  CKPT_TRY(peer.ship(2, {data(0, 2)}));
  CKPT_TRY(peer.attach(2, "void", 100));
  CKPT_TRY(peer.ship(4, {data(1, 3)}));
  CKPT_TRY(peer.attach(3, "good", 5000));
  CKPT_TRY(peer.ship(3, {data(1, 1), zeroes(15, 1)}));
  CKPT_TRY(peer.checkpoint(3));
  CKPT_TRY(apply_steps(peer, 1));
  CKPT_TRY(peer.ship(4, {zeroes(0, 2), data(10, 1)}));
  return peer.checkpoint(4);
}

Result<> end_history(StorePeer& peer) {
  CKPT_TRY(peer.ship(5, {data(0, 15)}));
  CKPT_TRY(peer.attach(5, "dropped", 4000));
  CKPT_TRY(peer.begin());
  CKPT_TRY(peer.ship(5, {data(2, 2)}));
  CKPT_TRY(peer.attach(5, "again", 3000));
  CKPT_TRY(peer.checkpoint(5));
  CKPT_TRY(peer.store().finish_applying());
  CKPT_TRY(peer.ship(6, {data(0, 8)}));
  CKPT_TRY(peer.roll_back(test_uuid(0x33)));
  CKPT_TRY(peer.ship(7, {data(12, 4)}));
  CKPT_TRY(peer.checkpoint(7));
  CKPT_TRY(peer.checkpoint(8));
  return apply_steps(peer, 4);
}

Result<> history(StorePeer& peer) {
  CKPT_TRY(begin_history(peer));
  return end_history(peer);
}

// After the faults have stopped: another checkpoint, exact as well.
void expect_goes_on(StorePeer& peer) {
  const uint64_t number = peer.last ? peer.last->checkpoint.id.number.value + 10 : 100;
  peer.incarnation = 8;
  ASSERT_DONE(peer.begin());
  ASSERT_DONE(peer.ship(number, {data(0, 1), zeroes(1, 1), data(14, 2)}));
  ASSERT_DONE(peer.checkpoint(number));
  peer.expect_exact();
}

uint64_t operations_of_history() {
  MemoryDisk disk;
  StorePeer peer(disk);
  EXPECT_TRUE(history(peer));
  return disk.operations();
}

TEST(StoreCrash, HistoryWithoutFaultsIsExact) {
  MemoryDisk disk;
  StorePeer peer(disk);
  ASSERT_DONE(history(peer));
  peer.expect_exact();
  EXPECT_GT(disk.operations(), 100U);
}

TEST(StoreCrash, PowerLossAtEveryOperation) {
  const uint64_t operations = operations_of_history();
  for (uint64_t at = 1; at <= operations; ++at) {
    for (const uint64_t seed : kSeeds) {
      SCOPED_TRACE("operation " + std::to_string(at) + ", seed " + std::to_string(seed));
      MemoryDisk disk;
      StorePeer peer(disk);
      disk.stop_at(at);
      ASSERT_FALSE(history(peer));
      peer.close();
      disk.lose_power(seed < 2 ? seed : seed * 1000 + at);
      ASSERT_DONE(peer.open());
      ASSERT_NO_FATAL_FAILURE(peer.expect_exact());
      ASSERT_NO_FATAL_FAILURE(expect_goes_on(peer));
    }
  }
}

TEST(StoreCrash, KillAtEveryOperation) {
  const uint64_t operations = operations_of_history();
  for (uint64_t at = 1; at <= operations; ++at) {
    SCOPED_TRACE("operation " + std::to_string(at));
    MemoryDisk disk;
    StorePeer peer(disk);
    disk.stop_at(at);
    ASSERT_FALSE(history(peer));
    peer.close();
    disk.restart_process();
    ASSERT_DONE(peer.open());
    // What the killed process had only in the page cache counts as durable from here on.
    const StoreStatus status = peer.store().status();
    peer.close();
    disk.lose_power(0);
    ASSERT_DONE(peer.open());
    EXPECT_EQ(peer.store().status().confirmed.has_value(), status.confirmed.has_value());
    ASSERT_NO_FATAL_FAILURE(peer.expect_exact());
    ASSERT_NO_FATAL_FAILURE(expect_goes_on(peer));
  }
}

// Opens and applies, stopping at operation after operation, until it gets through.
void recover_with_crashes(MemoryDisk& disk, StorePeer& peer, uint64_t seed) {
  for (uint64_t at = 1;; ++at) {
    disk.stop_at(at);
    const auto opened = peer.open();
    const bool is_through = opened && peer.store().finish_applying();
    ASSERT_TRUE(is_through || disk.has_stopped())
        << (opened ? "cannot apply" : opened.error().message());
    peer.close();
    disk.lose_power(seed < 2 ? seed : seed * 1000 + at);
    if (is_through) {
      return;
    }
  }
}

TEST(StoreCrash, CrashesInRecoveryAreHarmless) {
  const uint64_t operations = operations_of_history();
  for (uint64_t at = 1; at <= operations; ++at) {
    for (const uint64_t seed : {uint64_t{0}, uint64_t{1}, kAnySeed}) {
      SCOPED_TRACE("operation " + std::to_string(at) + ", seed " + std::to_string(seed));
      MemoryDisk disk;
      StorePeer peer(disk);
      disk.stop_at(at);
      ASSERT_FALSE(history(peer));
      peer.close();
      disk.lose_power(seed < 2 ? seed : seed * 1000 + at);
      ASSERT_NO_FATAL_FAILURE(recover_with_crashes(disk, peer, seed));
      ASSERT_DONE(peer.open());
      ASSERT_NO_FATAL_FAILURE(peer.expect_exact());
      ASSERT_NO_FATAL_FAILURE(expect_goes_on(peer));
    }
  }
}

TEST(StoreCrash, OpeningAgainChangesNothing) {
  MemoryDisk disk;
  StorePeer peer(disk);
  ASSERT_DONE(begin_history(peer));
  ASSERT_DONE(peer.ship(5, {data(0, 2)}));
  ASSERT_DONE(peer.open());
  const auto before = disk.snapshot();
  ASSERT_DONE(peer.open());
  EXPECT_EQ(disk.snapshot(), before);
  peer.expect_exact();
}

}  // namespace
}  // namespace ckpt::test
