// SPDX-License-Identifier: Apache-2.0
// Preserved copies: in memory, in the spill file, and what is lost.
#include <gtest/gtest.h>

#include <cerrno>

#include "plugin/preserved.h"
#include "tests/unit/plugin_fakes.h"

namespace ckpt::test {
namespace {

class PreservedTest : public testing::Test {
 protected:
  // Two copies fit into memory, two more into the spill file.
  static constexpr PreserveLimits kLimits{.memory_bytes = 2 * kBlockBytes,
                                          .total_bytes = 4 * kBlockBytes};

  void SetUp() override {
    auto file = images_.root()->open("image", OpenMode::kCreate);
    ASSERT_DONE(file);
    image_ = std::move(*file);
    for (uint64_t value = 1; value <= 5; ++value) {
      ASSERT_DONE(image_->write(value * kBlockBytes, block_of(value)));
    }
  }
  void put(uint64_t value) { queue_.keep(Epoch{5}, {value * kBlockBytes, kBlockBytes}, *image_); }
  void expect_next(uint64_t value) {
    const auto copy = queue_.next();
    ASSERT_TRUE(copy);
    EXPECT_EQ(copy->epoch, Epoch{5});
    EXPECT_EQ(copy->range.offset, value * kBlockBytes);
    Content content(copy->range.length);
    ASSERT_DONE(queue_.read(*copy, content));
    queue_.release({&*copy, 1});
    EXPECT_TRUE(content == block_of(value)) << value;
  }
  void expect_none() {
    EXPECT_FALSE(queue_.next());
    EXPECT_TRUE(queue_.empty());
  }

  MemoryDisk images_;
  std::unique_ptr<File> image_;

  MemoryDisk machine_;
  std::unique_ptr<Directory> directory_ = machine_.root();
  PreservedQueue queue_{*directory_, kLimits};
};

TEST_F(PreservedTest, CopiesComeBackInOrderFromMemoryAndSpillFile) {
  for (uint64_t value = 1; value <= 4; ++value) {
    put(value);
  }
  EXPECT_FALSE(queue_.empty());
  EXPECT_EQ(queue_.lost(), Epoch{});
  EXPECT_EQ(queue_.blocks_total(), 4U);
  for (uint64_t value = 1; value <= 4; ++value) {
    expect_next(value);
  }
  expect_none();
}

TEST_F(PreservedTest, OrderHoldsWhenMemoryIsFreeAgain) {
  put(1);
  put(2);
  put(3);  // spilled
  expect_next(1);
  put(4);  // memory again, behind the spilled one
  for (uint64_t value = 2; value <= 4; ++value) {
    expect_next(value);
  }
  expect_none();
}

TEST_F(PreservedTest, TheSpillFileHasNoNameAndIsNotMadeBeforeItIsNeeded) {
  put(1);
  EXPECT_EQ(machine_.operations(), 0U);
  put(2);
  put(3);
  EXPECT_GT(machine_.operations(), 0U);
  EXPECT_TRUE(directory_->list()->empty());
}

TEST_F(PreservedTest, OneThatAKilledProcessLeftIsNoObstacle) {
  ASSERT_DONE(directory_->open("preserved", OpenMode::kCreate));
  for (uint64_t value = 1; value <= 3; ++value) {
    put(value);
  }
  EXPECT_EQ(queue_.lost(), Epoch{});
  EXPECT_TRUE(directory_->list()->empty());
}

TEST_F(PreservedTest, BeyondTheLimitACopyIsLostAndItsEpochKnown) {
  for (uint64_t value = 1; value <= 5; ++value) {
    put(value);
  }
  EXPECT_EQ(queue_.lost(), Epoch{5});
  for (uint64_t value = 1; value <= 4; ++value) {
    expect_next(value);
  }
  expect_none();
}

TEST_F(PreservedTest, AFailedSpillFileLosesTheCopyOnly) {
  put(1);
  put(2);
  machine_.fail_operation(1, EIO);
  put(3);
  EXPECT_EQ(queue_.lost(), Epoch{5});
  expect_next(1);
  expect_next(2);
  expect_none();
}

TEST_F(PreservedTest, ACopyThatCannotBeReadIsLostAndLeavesItsRoom) {
  put(100);  // beyond the end of the file
  EXPECT_EQ(queue_.lost(), Epoch{5});
  queue_.clear();
  for (uint64_t value = 1; value <= 4; ++value) {
    put(value);
  }
  EXPECT_EQ(queue_.lost(), Epoch{});
}

TEST_F(PreservedTest, ClearingForgetsCopiesAndLosses) {
  for (uint64_t value = 1; value <= 5; ++value) {
    put(value);
  }
  queue_.clear();
  EXPECT_EQ(queue_.lost(), Epoch{});
  expect_none();
  for (uint64_t value = 1; value <= 4; ++value) {
    put(value);
  }
  EXPECT_EQ(queue_.lost(), Epoch{});
  for (uint64_t value = 1; value <= 4; ++value) {
    expect_next(value);
  }
}

TEST_F(PreservedTest, TheNewestLossCounts) {
  queue_.lose({7});
  queue_.lose({6});
  EXPECT_EQ(queue_.lost(), Epoch{7});
}

}  // namespace
}  // namespace ckpt::test
