// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include "tools/primary_watch.h"

namespace ckpt::test {
namespace {

using std::chrono::seconds;

class PrimaryWatchTest : public testing::Test {
 protected:
  bool look(std::optional<PrimaryPresence> seen, seconds at) { return watch_.is_due(seen, at); }
  bool away(seconds at) { return look(PrimaryPresence::kAway, at); }

  PrimaryWatch watch_{seconds(5)};
};

TEST_F(PrimaryWatchTest, IsDueWhenItWasAwayAllTheTime) {
  EXPECT_FALSE(away(seconds(100)));
  EXPECT_FALSE(away(seconds(104)));
  EXPECT_TRUE(away(seconds(105)));
  EXPECT_TRUE(away(seconds(106)));
}

TEST_F(PrimaryWatchTest, WhateverElseIsSeenBeginsAnew) {
  for (const std::optional<PrimaryPresence> seen :
       {std::optional(PrimaryPresence::kConnected), std::optional(PrimaryPresence::kStopped),
        std::optional(PrimaryPresence::kNever), std::optional(PrimaryPresence::kNotSaid),
        std::optional<PrimaryPresence>()}) {
    EXPECT_FALSE(away(seconds(100)));
    EXPECT_FALSE(look(seen, seconds(104)));
    EXPECT_FALSE(look(seen, seconds(106))) << "nor is it due by itself";
    EXPECT_FALSE(away(seconds(107)));
    EXPECT_FALSE(away(seconds(111)));
    EXPECT_TRUE(away(seconds(112)));
    watch_.restart();
  }
}

// The machine was suspended, and saw nothing.
TEST_F(PrimaryWatchTest, WhatWasNotSeenDoesNotCount) {
  EXPECT_FALSE(away(seconds(100)));
  EXPECT_FALSE(away(seconds(200)));
  EXPECT_FALSE(away(seconds(204)));
  EXPECT_TRUE(away(seconds(205)));
}

TEST_F(PrimaryWatchTest, IsDueAgainAfterAsLong) {
  EXPECT_FALSE(away(seconds(100)));
  EXPECT_TRUE(away(seconds(105)));
  watch_.restart();
  EXPECT_FALSE(away(seconds(106)));
  EXPECT_FALSE(away(seconds(110)));
  EXPECT_TRUE(away(seconds(111)));
}

}  // namespace
}  // namespace ckpt::test
