// SPDX-License-Identifier: Apache-2.0
// The two-generation record: no crash and no flipped bit loses it. docs/volume-format.md, "Slots".
#include <gtest/gtest.h>

#include <cerrno>

#include "common/slots.h"
#include "tests/unit/memory_directory.h"

namespace ckpt::test {
namespace {

constexpr uint64_t kSlotBytes = 65536;
constexpr char kName[] = "record";

std::string text_of(const Slots& slots) {
  std::string text;
  for (const std::byte byte : slots.payload()) {
    text.push_back(static_cast<char>(byte));
  }
  return text;
}

class SlotsTest : public testing::Test {
 protected:
  // Creates the record; all of it is durable then.
  void create(const std::string& text) {
    const auto slots = Slots::create(*disk_.root(), kName, as_bytes_of(text));
    ASSERT_TRUE(slots) << slots.error().message();
  }
  // What open() gives, or "error".
  std::string found() {
    const auto slots = Slots::open(*disk_.root(), kName);
    return slots ? text_of(*slots) : "error";
  }
  // Opens and writes; the answer.
  bool write(const std::string& text) {
    auto slots = Slots::open(*disk_.root(), kName);
    return slots && slots->write(as_bytes_of(text));
  }
  void flip(uint64_t byte, uint64_t bit) { disk_.content(kName)[byte] ^= std::byte{1} << bit; }

  MemoryDisk disk_;
};

TEST_F(SlotsTest, EachWriteIsTheNextGeneration) {
  create("one");
  auto slots = Slots::open(*disk_.root(), kName);
  ASSERT_TRUE(slots);
  EXPECT_EQ(slots->generation(), 1U);
  for (uint64_t generation = 2; generation < 6; ++generation) {
    ASSERT_TRUE(slots->write(as_bytes_of("number " + std::to_string(generation))));
    EXPECT_EQ(slots->generation(), generation);
    EXPECT_EQ(found(), "number " + std::to_string(generation));
  }
}

TEST_F(SlotsTest, TheLargestRecordFits) {
  const std::string largest(kSlotPayloadBytesMax, 'x');
  create(largest);
  EXPECT_EQ(found(), largest);
  ASSERT_TRUE(write(""));
  EXPECT_EQ(found(), "");
}

TEST_F(SlotsTest, NothingThereIsNotFound) {
  const auto slots = Slots::open(*disk_.root(), kName);
  ASSERT_FALSE(slots);
  EXPECT_EQ(slots.error().kind, ErrorKind::kNotFound);
}

TEST_F(SlotsTest, ACrashWhileCreatingLeavesNothingOrTheRecord) {
  for (uint64_t seed = 0; seed < 10; ++seed) {
    bool created = false;
    for (uint64_t step = 1; !created; ++step) {
      ASSERT_LT(step, 100U);
      MemoryDisk disk;
      disk.stop_at(step);
      created = Slots::create(*disk.root(), kName, as_bytes_of("first")).has_value() &&
                !disk.has_stopped();
      disk.lose_power(seed);
      const auto slots = Slots::open(*disk.root(), kName);
      EXPECT_TRUE(slots || slots.error().kind == ErrorKind::kNotFound) << step;
      EXPECT_TRUE(slots || !created) << step;
      EXPECT_TRUE(!slots || text_of(*slots) == "first");
      EXPECT_TRUE(Slots::create(*disk.root(), "other", {})) << "the leftover is in the way";
    }
  }
}

TEST_F(SlotsTest, ACrashAtEveryStepLeavesOldOrNew) {
  for (uint64_t seed = 0; seed < 20; ++seed) {
    bool answered = false;
    for (uint64_t step = 1; !answered; ++step) {
      ASSERT_LT(step, 100U);
      disk_ = MemoryDisk();
      create("before");
      ASSERT_TRUE(write("old"));
      disk_.stop_at(step);
      answered = write("new") && !disk_.has_stopped();
      disk_.lose_power(seed);
      const std::string text = found();
      EXPECT_TRUE(text == "new" || (text == "old" && !answered)) << text << " at " << step;
    }
  }
}

// Crash upon crash: what was found once is never gone again without a write.
TEST_F(SlotsTest, ManyCrashesInARowNeverLoseWhatWasFound) {
  for (uint64_t seed = 2; seed < 60; ++seed) {
    disk_ = MemoryDisk();
    create("0");
    std::string known = "0";
    for (uint64_t turn = 1; turn < 12; ++turn) {
      const std::string next = std::to_string(turn);
      disk_.stop_at((seed * 7 + turn * 5) % 9 + 1);
      const bool answered = write(next) && !disk_.has_stopped();
      disk_.lose_power(seed * 100 + turn);
      const std::string text = found();
      ASSERT_TRUE(text == next || (text == known && !answered)) << "seed " << seed;
      known = text;
      ASSERT_EQ(found(), known);
    }
  }
}

TEST_F(SlotsTest, AnyOneFlippedBitIsSurvived) {
  create("the older generation");
  ASSERT_TRUE(write("the newest one"));
  const uint64_t used_bytes = 64 + 24;
  for (uint64_t byte = 0; byte < 4 * kSlotBytes; ++byte) {
    // Every bit of headers and payloads, and some of those that mean nothing.
    const bool is_used = byte % kSlotBytes < used_bytes;
    if (!is_used && byte % 4099 != 0) {
      continue;
    }
    for (uint64_t bit = 0; bit < 8; bit += is_used ? 1 : 5) {
      flip(byte, bit);
      ASSERT_EQ(found(), "the newest one") << "byte " << byte << " bit " << bit;
      flip(byte, bit);
    }
  }
}

TEST_F(SlotsTest, BothCopiesOfAGenerationDamagedIsRefused) {
  create("older");
  ASSERT_TRUE(write("newest"));
  for (const uint64_t parity : std::initializer_list<uint64_t>{0, 1}) {
    flip(parity * 2 * kSlotBytes + 64, 0);
    flip((parity * 2 + 1) * kSlotBytes + 64, 0);
    const auto slots = Slots::open(*disk_.root(), kName);
    ASSERT_FALSE(slots) << "generation fell back to " << text_of(*slots);
    EXPECT_EQ(slots.error().kind, ErrorKind::kCorrupt);
    EXPECT_NE(slots.error().message().find(kName), std::string::npos);
    flip(parity * 2 * kSlotBytes + 64, 0);
    flip((parity * 2 + 1) * kSlotBytes + 64, 0);
  }
  EXPECT_EQ(found(), "newest");
}

TEST_F(SlotsTest, ANewerVersionIsRefusedAsSuch) {
  create("older");
  ASSERT_TRUE(write("newest"));
  for (const uint64_t copy : std::initializer_list<uint64_t>{0, 1}) {
    flip(copy * kSlotBytes + 4, 1);  // version 3 instead of 1, in generation 2
  }
  const auto slots = Slots::open(*disk_.root(), kName);
  ASSERT_FALSE(slots);
  EXPECT_EQ(slots.error().kind, ErrorKind::kInvalid);
  EXPECT_NE(slots.error().message().find("newer version"), std::string::npos);
}

TEST_F(SlotsTest, AnotherSizeIsRefused) {
  create("x");
  for (const uint64_t size_bytes : {uint64_t{0}, 4 * kSlotBytes - 1, 4 * kSlotBytes + 1}) {
    const auto content = disk_.content(kName);
    disk_.content(kName).resize(size_bytes);
    EXPECT_EQ(found(), "error");
    disk_.content(kName) = content;
  }
  EXPECT_EQ(found(), "x");
}

TEST_F(SlotsTest, OnlyTheOlderGenerationIsOverwritten) {
  create("one");
  auto slots = Slots::open(*disk_.root(), kName);
  ASSERT_TRUE(slots);
  for (uint64_t generation = 2; generation < 6; ++generation) {
    std::vector<std::string> acts;
    disk_.set_watcher([&](const MemoryOperation& operation) {
      acts.push_back(operation.act);
      if (operation.act == "write") {
        EXPECT_EQ(operation.range.offset / kSlotBytes / 2, generation % 2);
      }
    });
    ASSERT_TRUE(slots->write(as_bytes_of("next")));
    disk_.set_watcher(nullptr);
    EXPECT_EQ(acts, (std::vector<std::string>{"write", "sync", "write", "sync"}));
  }
}

TEST_F(SlotsTest, AFailedWriteIsFinal) {
  for (uint64_t step = 1; step <= 4; ++step) {
    disk_ = MemoryDisk();
    create("old");
    auto slots = Slots::open(*disk_.root(), kName);
    ASSERT_TRUE(slots);
    disk_.fail_operation(step, EIO);
    EXPECT_FALSE(slots->write(as_bytes_of("new")));
    const auto again = slots->write(as_bytes_of("newer"));
    ASSERT_FALSE(again) << "step " << step;
    EXPECT_EQ(again.error().number, EIO);
    EXPECT_EQ(text_of(*slots), "old");
    EXPECT_EQ(slots->generation(), 1U);
  }
}

}  // namespace
}  // namespace ckpt::test
