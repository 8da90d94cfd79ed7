// SPDX-License-Identifier: Apache-2.0
// Random histories of two stores and the relay between them.
#include <random>

#include "tests/unit/relayed_stores.h"

namespace ckpt::test {
namespace {

// Whatever breaks wherever, what the further store has is a checkpoint; and when nothing breaks any
// more, it comes to have the last one.
class RelayHistory : public RelayTest, public ::testing::WithParamInterface<uint64_t> {
 protected:
  Extent draw_extent(uint64_t from, uint64_t to) {
    const uint64_t first = from + draw_() % (to - from);
    const uint64_t count = 1 + draw_() % (to - first);
    return draw_() % 3 == 0 ? zeroes(first, count) : data(first, count);
  }
  void ship() {
    const uint64_t half = 2 + draw_() % 12;
    ASSERT_DONE(peer_.ship(number_, {draw_extent(0, half), draw_extent(half, 16)}));
  }
  void act() {
    switch (draw_() % 12) {
      case 0:
      case 1:
      case 2: return ship();
      case 3:
        ASSERT_DONE(peer_.attach(number_, "a" + std::to_string(draw_()), 1 + draw_() % 9000));
        return;
      case 4:
      case 5:
        checkpoint(number_);
        number_ += 1 + draw_() % 2;
        return;
      case 6: ASSERT_DONE(peer_.store().apply_some()); return;
      case 7: return roll_back();
      case 8:
        if (draw_() % 3 == 0) {
          further_.reset();
          further_disk_.lose_power(draw_());
          open_further();
        }
        return;
      case 9:
        if (draw_() % 3 == 0) {
          start_relay(draw_queue());
        }
        return;
      default: step();
    }
  }
  uint64_t draw_queue() { return draw_() % 2 == 0 ? 5 * kBlockBytes : kRelayQueueBytesMax; }
  // Breaks the link at some call, and lets the store change meanwhile.
  void step() {
    uint64_t calls = draw_() % 3 == 0 ? 1 + draw_() % 20 : UINT64_MAX;
    uint64_t meanwhile = draw_() % 2 == 0 ? 1 + draw_() % 10 : UINT64_MAX;
    link_.on_call = [this, calls, meanwhile](bool) mutable -> Result<> {
      if (--meanwhile == 0) {
        change();
      }
      return --calls == 0 ? fail(ErrorKind::kUnreachable, "broken") : Result<>();
    };
    (void)relay_->step();
    link_.on_call = [](bool) { return Result<>(); };
    expect_whole();
  }
  void roll_back() {
    if (peer_.last) {
      ASSERT_DONE(peer_.roll_back(test_uuid(static_cast<uint8_t>(++timeline_))));
      ASSERT_DONE(peer_.begin());
      remember();
    }
  }
  void change() {
    if (draw_() % 4 == 0) {
      roll_back();
    }
    ship();
    checkpoint(number_++);
    ASSERT_DONE(peer_.store().finish_applying());
  }

  std::mt19937_64 draw_;
  uint64_t number_ = 1;
  unsigned timeline_ = 0x80;
};

TEST_P(RelayHistory, TheFurtherStoreHasWholeCheckpoints) {
  draw_.seed(GetParam());
  start_relay(draw_queue());
  for (int i = 0; i < 60 && !HasFatalFailure(); ++i) {
    act();
  }
  relay_all();
  if (peer_.last) {
    expect_passed(peer_.last->checkpoint.id.number.value);
    EXPECT_EQ(further_->record().last->id, peer_.last->checkpoint.id);
    EXPECT_EQ(further_->record().forks, peer_.store().record().forks);
  }
  peer_.expect_exact();
}

INSTANTIATE_TEST_SUITE_P(Seeds, RelayHistory, ::testing::Range<uint64_t>(1, 301));

}  // namespace
}  // namespace ckpt::test
