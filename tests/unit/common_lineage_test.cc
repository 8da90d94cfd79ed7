// SPDX-License-Identifier: Apache-2.0
#include "common/lineage.h"

#include <gtest/gtest.h>

namespace ckpt {
namespace {

Uuid timeline(uint8_t number) {
  Uuid uuid;
  uuid.bytes[0] = number;
  return uuid;
}

TEST(Lineage, WhatIsAtOrBeforeAnEndIsOnTheLine) {
  const std::vector<CheckpointId> forks{{timeline(1), Epoch{5}}};
  const CheckpointId last{timeline(2), Epoch{9}};
  EXPECT_TRUE(is_on_line({timeline(1), Epoch{5}}, forks, last));
  EXPECT_FALSE(is_on_line({timeline(1), Epoch{6}}, forks, last));
  EXPECT_TRUE(is_on_line({timeline(2), Epoch{9}}, forks, last));
  EXPECT_FALSE(is_on_line({timeline(2), Epoch{10}}, forks, last));
  EXPECT_FALSE(is_on_line({timeline(3), Epoch{1}}, forks, last));
}

TEST(Lineage, OnlyTheLastEndsAreTold) {
  std::vector<CheckpointId> forks;
  EXPECT_TRUE(recent_ends(forks).empty());
  for (uint8_t number = 0; number < kLineageMax; ++number) {
    forks.push_back({timeline(number), Epoch{number}});
  }
  EXPECT_EQ(recent_ends(forks), forks);
  forks.push_back({timeline(99), Epoch{99}});
  const auto told = recent_ends(forks);
  ASSERT_EQ(told.size(), kLineageMax);
  EXPECT_EQ(told.front(), forks[1]);
  EXPECT_EQ(told.back(), forks.back());
}

}  // namespace
}  // namespace ckpt
