// SPDX-License-Identifier: Apache-2.0
// The pace of work that may wait, and the drafts that it fills.
#include <gtest/gtest.h>

#include <thread>

#include "plugin/crowd_meter.h"
#include "common/draft.h"
#include "plugin/pace.h"
#include "tests/unit/plugin_fakes.h"

namespace ckpt::test {
namespace {

using std::chrono::milliseconds;

TEST(Pace, RestsWhileClientsWrite) {
  FakeClock clock;
  Pace pace(milliseconds(2));
  EXPECT_TRUE(pace.may_go_on(clock.steady(), milliseconds(0)));
  pace.rest_for(milliseconds(10), clock.steady());
  EXPECT_EQ(pace.rest(clock.steady()), milliseconds(2));
  EXPECT_EQ(pace.rest(clock.steady(), milliseconds(50)), milliseconds(10));
  EXPECT_EQ(pace.rest(clock.steady(), milliseconds(5)), milliseconds(5));
  clock.pass(milliseconds(9));
  EXPECT_FALSE(pace.may_go_on(clock.steady(), milliseconds(1)));
  EXPECT_EQ(pace.rest(clock.steady()), milliseconds(1));
  clock.pass(milliseconds(1));
  EXPECT_TRUE(pace.may_go_on(clock.steady(), milliseconds(1)));
  EXPECT_EQ(pace.rest(clock.steady()), milliseconds(0));
}

TEST(Pace, GoesOnWhenClientsAreQuiet) {
  FakeClock clock;
  Pace pace(milliseconds(2));
  pace.rest_for(milliseconds(10), clock.steady());
  EXPECT_FALSE(pace.may_go_on(clock.steady(), milliseconds(1)));
  EXPECT_TRUE(pace.may_go_on(clock.steady(), milliseconds(2)));
}

// More threads than processors, none of which waits: each must wait for a processor.
TEST(CrowdMeter, NoticesThatProcessorsAreShort) {
  std::atomic<bool> over{false};
  std::vector<std::thread> crowd;
  for (unsigned i = 0; i < 2 * std::thread::hardware_concurrency(); ++i) {
    crowd.emplace_back([&over] {
      while (!over.load()) {
      }
    });
  }
  CrowdMeter meter;
  meter.look();
  const auto end = std::chrono::steady_clock::now() + milliseconds(300);
  while (std::chrono::steady_clock::now() < end) {
  }
  meter.look();
  over.store(true);
  for (std::thread& thread : crowd) {
    thread.join();
  }
  EXPECT_TRUE(meter.is_crowded());
  EXPECT_EQ(meter.rest(1000), milliseconds(50));
}

TEST(Draft, BlocksOfZeroesBecomeExtentsWithoutDataAndTheRestMovesUp) {
  Draft draft(8 * kBlockBytes);
  draft.begin(7);
  EXPECT_TRUE(draft.empty());
  Content content;
  for (const uint64_t value : {1U, 0U, 2U, 0U}) {
    const Content block = block_of(value);
    content.insert(content.end(), block.begin(), block.end());
  }
  const ByteSpan room = draft.room(content.size());
  std::ranges::copy(content, room.begin());
  const std::array<Transfer, 2> blocks{
      {{0, room.first(3 * kBlockBytes)}, {9 * kBlockBytes, room.subspan(3 * kBlockBytes)}}};
  draft.add(blocks);
  const Content tail = block_of(3, 512);
  const Transfer last{20 * kBlockBytes, draft.room(512)};
  std::ranges::copy(tail, last.buffer.begin());
  draft.add({&last, 1});
  EXPECT_EQ(draft.sequence(), 7U);
  EXPECT_EQ(draft.blocks(), 5U);
  EXPECT_EQ(draft.extents(), (std::vector<Extent>{{0, kBlockBytes},
                                                  {kBlockBytes, kBlockBytes, ExtentKind::kZero},
                                                  {2 * kBlockBytes, kBlockBytes},
                                                  {9 * kBlockBytes, kBlockBytes, ExtentKind::kZero},
                                                  {20 * kBlockBytes, 512}}));
  Content expected = block_of(1);
  for (const Content& more : {block_of(2), tail}) {
    expected.insert(expected.end(), more.begin(), more.end());
  }
  EXPECT_TRUE(std::ranges::equal(draft.data(), expected));
  draft.begin(8);
  EXPECT_TRUE(draft.empty());
  EXPECT_TRUE(draft.data().empty());
}

}  // namespace
}  // namespace ckpt::test
