// SPDX-License-Identifier: Apache-2.0
// Results, identities, ranges and times.
#include <gtest/gtest.h>

#include <cerrno>

#include "common/block.h"
#include "common/clock.h"
#include "common/result.h"

namespace ckpt {
namespace {

Result<int> half_of(int number) {
  if (number % 2 != 0) {
    return fail(ErrorKind::kInvalid, "odd: " + std::to_string(number));
  }
  return number / 2;
}

Result<int> quarter_of(int number) {
  CKPT_ASSIGN(const int half, half_of(number));
  return half_of(half);
}

Result<> check_even(int number) {
  CKPT_TRY(half_of(number));
  return {};
}

TEST(Result, HoldsAValueOrAnError) {
  ASSERT_TRUE(half_of(6));
  EXPECT_EQ(*half_of(6), 3);
  ASSERT_FALSE(half_of(3));
  EXPECT_EQ(half_of(3).error().kind, ErrorKind::kInvalid);
  EXPECT_TRUE(Result<>());
}

TEST(Result, IsPassedOnAsItIs) {
  EXPECT_EQ(*quarter_of(12), 3);
  EXPECT_EQ(quarter_of(6).error().message(), "odd: 3");
  EXPECT_TRUE(check_even(4));
  EXPECT_EQ(check_even(5).error().message(), "odd: 5");
}

TEST(Result, MovesItsValueOut) {
  Result<std::string> text(std::string(100, 'x'));
  const std::string taken = std::move(text).value();
  EXPECT_EQ(taken, std::string(100, 'x'));
}

TEST(Result, ContextIsPutInFront) {
  const Error inner = fail_errno(EIO, "fdatasync journal/7").error();
  const Error outer = within("store", inner).error();
  EXPECT_EQ(outer.message(), "store: fdatasync journal/7: Input/output error");
  EXPECT_EQ(outer.kind, ErrorKind::kIo);
  EXPECT_EQ(outer.number, EIO);
}

TEST(Result, SystemErrorsHaveKinds) {
  EXPECT_EQ(fail_errno(ENOSPC, "").error().kind, ErrorKind::kNoSpace);
  EXPECT_EQ(fail_errno(EDQUOT, "").error().kind, ErrorKind::kNoSpace);
  EXPECT_EQ(fail_errno(ENOENT, "").error().kind, ErrorKind::kNotFound);
  EXPECT_EQ(fail_errno(EACCES, "").error().kind, ErrorKind::kIo);
}

TEST(Result, KindsHaveSystemErrors) {
  const auto number_of = [](ErrorKind kind) { return Error{kind, 0, ""}.to_errno(); };
  EXPECT_EQ(number_of(ErrorKind::kNoSpace), ENOSPC);
  EXPECT_EQ(number_of(ErrorKind::kInvalid), EINVAL);
  EXPECT_EQ(number_of(ErrorKind::kNotFound), ENOENT);
  EXPECT_EQ(number_of(ErrorKind::kBusy), EBUSY);
  EXPECT_EQ(number_of(ErrorKind::kTimeout), ETIMEDOUT);
  EXPECT_EQ(number_of(ErrorKind::kFenced), ESHUTDOWN);
  EXPECT_EQ(number_of(ErrorKind::kDenied), EACCES);
  EXPECT_EQ(number_of(ErrorKind::kCorrupt), EIO);
  EXPECT_EQ((Error{ErrorKind::kFenced, EPERM, ""}.to_errno()), EPERM);
}

TEST(ResultDeathTest, AFailedCheckAborts) {
  EXPECT_DEATH(CKPT_CHECK(1 + 1 == 3), "check failed: 1 \\+ 1 == 3");
}

TEST(Uuid, TextAndBack) {
  const std::string text = "018f2a3b-4c5d-4e6f-8091-a2b3c4d5e6f7";
  const auto uuid = Uuid::parse(text);
  ASSERT_TRUE(uuid);
  EXPECT_EQ(uuid->bytes[0], 0x01);
  EXPECT_EQ(uuid->bytes[15], 0xf7);
  EXPECT_EQ(uuid->to_string(), text);
  EXPECT_EQ(Uuid::parse("018F2A3B-4C5D-4E6F-8091-A2B3C4D5E6F7"), uuid);
  EXPECT_FALSE(uuid->is_nil());
  EXPECT_TRUE(Uuid{}.is_nil());
}

TEST(Uuid, EverythingElseIsRefused) {
  const std::string good = "018f2a3b-4c5d-4e6f-8091-a2b3c4d5e6f7";
  for (size_t i = 0; i < good.size(); ++i) {
    for (const char other : {'g', '-', ' ', '\0', '/', ':', '@', '`'}) {
      std::string bad = good;
      bad[i] = other;
      EXPECT_EQ(Uuid::parse(bad).has_value(), bad == good) << bad;
    }
    EXPECT_FALSE(Uuid::parse(good.substr(0, i)));
  }
  EXPECT_FALSE(Uuid::parse(good + "0"));
}

TEST(Digest, Text) {
  Digest digest;
  for (size_t i = 0; i < digest.bytes.size(); ++i) {
    digest.bytes[i] = static_cast<uint8_t>(0xf0 + i);
  }
  EXPECT_EQ(digest.to_string(), "f0f1f2f3f4f5f6f7f8f9fafbfcfdfeff");
}

TEST(BlockRange, CountsAndOverlaps) {
  EXPECT_EQ((BlockRange{3, 5}.count()), 2U);
  EXPECT_TRUE((BlockRange{3, 3}.empty()));
  EXPECT_TRUE((BlockRange{3, 5}.overlaps({4, 9})));
  EXPECT_FALSE((BlockRange{3, 5}.overlaps({5, 9})));
  EXPECT_FALSE((BlockRange{5, 9}.overlaps({3, 5})));
}

TEST(BlockRange, OfBytesAndBack) {
  EXPECT_EQ(block_count(0), 0U);
  EXPECT_EQ(block_count(1), 1U);
  EXPECT_EQ(block_count(4096), 1U);
  EXPECT_EQ(block_count(4097), 2U);
  EXPECT_EQ(blocks_of({4095, 2}), (BlockRange{0, 2}));
  EXPECT_EQ(blocks_of({4096, 4096}), (BlockRange{1, 2}));
  EXPECT_EQ(bytes_of({1, 3}, 10000), (ByteRange{4096, 5904}));
  EXPECT_EQ(bytes_of({1, 2}, 1 << 20U), (ByteRange{4096, 4096}));
}

TEST(Time, IsRfc3339InUtc) {
  using std::chrono::milliseconds;
  using std::chrono::seconds;
  EXPECT_EQ(format_time(WallTime{}), "1970-01-01T00:00:00.000Z");
  EXPECT_EQ(format_time(seconds(1769860800) + milliseconds(7)), "2026-01-31T12:00:00.007Z");
  EXPECT_EQ(format_time(seconds(951782400) - WallTime(1)), "2000-02-28T23:59:59.999Z");
}

TEST(Time, BeforeTheEpochIsATimeToo) {
  EXPECT_EQ(format_time(std::chrono::milliseconds(-5)), "1969-12-31T23:59:59.995Z");
}

TEST(Random, UuidsAreOfVersion4) {
  for (int i = 0; i < 100; ++i) {
    const Uuid uuid = system_random().uuid();
    EXPECT_EQ(uuid.bytes[6] >> 4U, 4);
    EXPECT_EQ(uuid.bytes[8] >> 6U, 2);
  }
  EXPECT_NE(system_random().uuid(), system_random().uuid());
}

}  // namespace
}  // namespace ckpt
