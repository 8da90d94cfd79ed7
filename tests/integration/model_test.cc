// SPDX-License-Identifier: Apache-2.0
// The oracle accepts every history a right disk can have, and finds each way a wrong one goes
// wrong.

#include "tests/integration/model.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <random>

#include "tests/integration/content.h"

namespace ckpt {
namespace {

using Bytes = std::vector<uint8_t>;

constexpr uint64_t kDiskBytes = 65536;

Bytes content_of(uint64_t seed, uint64_t offset, uint64_t length) {
  Bytes bytes(length);
  fill_content(seed, offset, bytes);
  return bytes;
}

void put(Bytes& disk, const Operation& o) {
  const Bytes bytes =
      o.kind == OperationKind::kWrite ? content_of(o.seed, o.offset, o.length) : Bytes(o.length);
  std::copy(bytes.begin(), bytes.end(), disk.begin() + static_cast<std::ptrdiff_t>(o.offset));
}

Operation write_of(uint64_t offset, uint64_t length, uint64_t seed) {
  return {.offset = offset, .length = length, .kind = OperationKind::kWrite, .seed = seed};
}

class ModelTest : public testing::Test {
 protected:
  // An answered request that takes effect on `disk`.
  void apply(const Operation& o) {
    model.end(model.begin(o), Outcome::kDone);
    put(disk, o);
  }
  Report check(const std::string& name = "now") { return model.check(disk, *model.window(name)); }

  Bytes disk = content_of(99, 0, kDiskBytes);
  Model model{disk};
};

TEST(Content, FillsAndMatchesAtAnyAlignment) {
  for (uint64_t offset = 0; offset < 20; ++offset) {
    for (uint64_t length = 1; length < 40; ++length) {
      Bytes bytes = content_of(7, offset, length);
      EXPECT_EQ(content_match(7, offset, bytes), length);
      for (uint64_t i = 0; i < length; ++i) EXPECT_EQ(bytes[i], content_byte(7, offset + i));
      bytes[length / 2] ^= 1;
      EXPECT_EQ(content_match(7, offset, bytes), length / 2);
    }
  }
}

TEST(Content, MatchesZeroesAndOtherBytes) {
  Bytes bytes(10000);
  EXPECT_EQ(zero_match(bytes), bytes.size());
  Bytes other = bytes;
  bytes[5001] = 1;
  EXPECT_EQ(zero_match(bytes), 5001U);
  EXPECT_EQ(equal_match(bytes, other), 5001U);
}

TEST_F(ModelTest, AcceptsTheBaseAndAnsweredRequests) {
  EXPECT_TRUE(check().clean());
  apply(write_of(100, 5000, 1));
  apply({.offset = 3000, .length = 4000, .kind = OperationKind::kTrim});
  apply(write_of(3500, 1, 2));
  EXPECT_TRUE(check().clean());
}

TEST_F(ModelTest, FindsEveryFlippedByte) {
  apply(write_of(100, 300, 1));
  for (uint64_t at = 0; at < 600; ++at) {
    disk[at] ^= 4;
    const Report report = check();
    ASSERT_EQ(report.mismatched_bytes, 1U);
    EXPECT_EQ(report.mismatches.front().offset, at);
    EXPECT_FALSE(report.mismatches.front().detail.empty());
    disk[at] ^= 4;
  }
}

TEST_F(ModelTest, FindsALostWrite) {
  model.end(model.begin(write_of(4096, 4096, 1)), Outcome::kDone);
  const Report report = check();
  EXPECT_GT(report.mismatched_bytes, 4000U);  // some bytes are equal by chance
  EXPECT_GE(report.mismatches.front().offset, 4096U);
}

TEST_F(ModelTest, FindsAnOldWriteOverANewerOne) {
  apply(write_of(0, 8192, 1));
  const Bytes old = disk;
  apply(write_of(4096, 8192, 2));
  std::copy(old.begin() + 4096, old.begin() + 4608, disk.begin() + 4096);
  EXPECT_GT(check().mismatched_bytes, 400U);
}

TEST_F(ModelTest, AcceptsEitherOrderOfOverlappingRequestsInFlight) {
  const Operation a = write_of(0, 8192, 1);
  const Operation b = write_of(4096, 8192, 2);
  const size_t first = model.begin(a);
  const size_t second = model.begin(b);
  model.end(second, Outcome::kDone);
  model.end(first, Outcome::kDone);
  put(disk, b);
  put(disk, a);
  EXPECT_TRUE(check().clean());
  put(disk, b);
  EXPECT_TRUE(check().clean());
  std::copy_n(content_of(1, 4096, 10).begin(), 10, disk.begin() + 4096);  // and a mixture
  EXPECT_TRUE(check().clean());
}

TEST_F(ModelTest, FailedAndUnansweredRequestsMayHaveHappened) {
  const Operation a = write_of(0, 4096, 1);
  const Operation b = write_of(8192, 4096, 2);
  model.end(model.begin(a), Outcome::kFailed);
  model.end(model.begin(b), Outcome::kUnknown);
  EXPECT_TRUE(check().clean());
  put(disk, a);
  put(disk, b);
  EXPECT_TRUE(check().clean());
}

TEST_F(ModelTest, AnUnansweredRequestMayLandLateButNotAfterTheServersDeath) {
  const Operation a = write_of(0, 4096, 1);
  model.begin(a);
  apply(write_of(0, 4096, 2));
  const Bytes right = disk;
  put(disk, a);
  EXPECT_TRUE(check().clean());
  disk = right;
  model.lost();
  apply(write_of(0, 4096, 3));
  EXPECT_TRUE(check().clean());
  put(disk, a);
  EXPECT_FALSE(check().clean());
}

TEST_F(ModelTest, AFailedRequestHidesNothing) {
  apply(write_of(0, 4096, 1));
  model.end(model.begin(write_of(0, 4096, 2)), Outcome::kFailed);
  EXPECT_TRUE(check().clean());
}

TEST_F(ModelTest, ACheckpointHoldsWhatWasAnsweredBeforeAndNothingIssuedAfter) {
  apply(write_of(0, 4096, 1));
  const Bytes right = disk;
  model.begin_mark("c");
  model.end_mark("c");
  apply(write_of(0, 4096, 2));
  EXPECT_FALSE(check("c").clean());
  disk = right;
  EXPECT_TRUE(check("c").clean());
  EXPECT_FALSE(check().clean());
  disk = content_of(99, 0, kDiskBytes);
  EXPECT_FALSE(check("c").clean());
}

TEST_F(ModelTest, RequestsAcrossTheCutMayBeEither) {
  const Operation a = write_of(0, 8192, 1);
  const size_t number = model.begin(a);
  model.begin_mark("c");
  model.end_mark("c");
  model.end(number, Outcome::kDone);
  EXPECT_TRUE(check("c").clean());
  std::copy_n(content_of(1, 4096, 4096).begin(), 4096, disk.begin() + 4096);  // block by block
  EXPECT_TRUE(check("c").clean());
  put(disk, a);
  EXPECT_TRUE(check("c").clean());
}

TEST_F(ModelTest, OneCutMustExplainAllBlocks) {
  model.begin_mark("c");
  const Bytes before = disk;
  apply(write_of(0, 4096, 1));
  const Bytes between = disk;
  apply(write_of(8192, 4096, 2));
  model.end_mark("c");
  EXPECT_TRUE(check("c").clean());
  disk = between;
  EXPECT_TRUE(check("c").clean());
  disk = before;
  EXPECT_TRUE(check("c").clean());
  put(disk, write_of(8192, 4096, 2));  // the later write without the earlier one
  const Report report = check("c");
  EXPECT_EQ(report.mismatched_bytes, 0U);
  EXPECT_NE(report.cut_conflict, "");
}

TEST_F(ModelTest, AnUnansweredCheckpointIsClosedByLost) {
  model.begin_mark("c");
  apply(write_of(0, 4096, 1));
  model.lost();
  EXPECT_TRUE(check("c").clean());
  const Bytes right = disk;
  apply(write_of(0, 4096, 2));
  EXPECT_FALSE(check("c").clean());
  disk = right;
  EXPECT_TRUE(check("c").clean());
}

TEST_F(ModelTest, AdoptingAfterARollbackKeepsOnlyItsMark) {
  model.begin_mark("old");
  model.end_mark("old");
  apply(write_of(0, 4096, 1));
  const Bytes right = disk;
  model.begin_mark("c");
  model.end_mark("c");
  apply(write_of(0, 4096, 2));
  disk = right;
  ASSERT_TRUE(model.adopt(disk, "c"));
  EXPECT_FALSE(model.window("old"));
  EXPECT_EQ(model.operation_count(), 0U);
  apply(write_of(4096, 4096, 3));
  EXPECT_TRUE(check().clean());
  EXPECT_FALSE(check("c").clean());
  disk = right;
  EXPECT_TRUE(check("c").clean());
}

TEST_F(ModelTest, AdoptingNowKeepsTheMarksThatStillHold) {
  model.begin_mark("old");
  model.end_mark("old");
  apply(write_of(0, 4096, 1));
  model.begin_mark("fresh");
  model.end_mark("fresh");
  ASSERT_TRUE(model.adopt(disk, "now"));
  EXPECT_FALSE(model.window("old"));
  EXPECT_TRUE(check("fresh").clean());
}

TEST_F(ModelTest, AdoptsNothingWhileRequestsAreOpen) {
  model.begin(write_of(0, 4096, 1));
  EXPECT_FALSE(model.adopt(disk, "now"));
  model.lost();
  EXPECT_TRUE(model.adopt(disk, "now"));
}

TEST_F(ModelTest, ARollbackUndoesWhatEndedBeforeItAndMayUndoWhatMetIt) {
  apply(write_of(0, 4096, 1));
  const Bytes at_checkpoint = disk;
  model.begin_mark("c");
  model.end_mark("c");
  apply(write_of(0, 4096, 2));
  const Operation held = write_of(8192, 4096, 3);
  const size_t number = model.begin(held);
  model.begin_rollback();
  ASSERT_TRUE(model.end_rollback("c"));
  model.end(number, Outcome::kDone);
  EXPECT_FALSE(check().clean());  // the rollback did not happen
  disk = at_checkpoint;
  EXPECT_TRUE(check().clean());
  put(disk, held);
  EXPECT_TRUE(check().clean());
  apply(write_of(8192, 4096, 4));
  EXPECT_TRUE(check().clean());
  put(disk, held);
  EXPECT_FALSE(check().clean());
}

// A random history on a small disk, executed in an order that its times allow.
struct History {
  explicit History(uint64_t seed) : random(seed) {
    for (int i = 0; i < 120; ++i) step();
    while (!open.empty()) finish(random() % open.size());
  }

  struct Open {
    size_t number;
    Operation operation;
  };

  void step() {
    const uint64_t dice = random() % 100;
    if (dice < 50 && open.size() < 6) issue();
    if (dice >= 50 && !open.empty()) finish(random() % open.size());
    if (dice == 99 && !marked) mark();
  }

  void issue() {
    Operation o = write_of(random() % 4000, 1 + random() % 96, random());
    if (random() % 3 == 0) o.kind = OperationKind::kZero;
    open.push_back({model.begin(o), o});
  }

  // Each block of a request takes effect at its own moment, until its answer.
  void finish(size_t which) {
    put(disk, open[which].operation);
    model.end(open[which].number, Outcome::kDone);
    open.erase(open.begin() + static_cast<std::ptrdiff_t>(which));
  }

  void mark() {
    marked = true;
    model.begin_mark("c");
    for (int i = 0; i < 10; ++i) step();
    if (!open.empty()) put(disk, open[random() % open.size()].operation);
    copy = disk;
    for (int i = 0; i < 10; ++i) step();
    model.end_mark("c");
  }

  std::mt19937_64 random;
  Bytes disk = Bytes(4096);
  Bytes copy;
  Model model{disk};
  std::vector<Open> open;
  bool marked = false;
};

TEST(RandomHistories, OfARightDiskAreAccepted) {
  int with_mark = 0;
  for (uint64_t seed = 1; seed <= 400; ++seed) {
    History history(seed);
    const Report now = history.model.check(history.disk, *history.model.window("now"));
    ASSERT_TRUE(now.clean()) << "seed " << seed << ": " << now.mismatches.front().detail;
    if (!history.marked) continue;
    ++with_mark;
    const Report cut = history.model.check(history.copy, *history.model.window("c"));
    ASSERT_TRUE(cut.clean()) << "seed " << seed << ": " << cut.cut_conflict;
  }
  EXPECT_GT(with_mark, 100);
}

// The rule as README.md states it, byte by byte and without any cleverness.
bool naively_legal(const Bytes& base, const std::vector<Operation>& all, Window w, uint64_t at,
                   uint8_t found) {
  const auto hides = [&](const Operation& b, Time ended) {
    return b.covers(at) && b.certain && b.ended < w.begin && ended < b.issued;
  };
  const auto visible = [&](Time ended) {
    return std::none_of(all.begin(), all.end(),
                        [&](const Operation& b) { return hides(b, ended); });
  };
  if (visible(0) && base[at] == found) return true;
  return std::any_of(all.begin(), all.end(), [&](const Operation& a) {
    const uint8_t byte = a.kind == OperationKind::kWrite ? content_byte(a.seed, at) : uint8_t{0};
    return a.covers(at) && a.issued < w.end && byte == found && visible(a.ended);
  });
}

TEST(RandomHistories, AreJudgedAsTheRuleSays) {
  std::mt19937_64 random(5);
  for (int round = 0; round < 300; ++round) {
    Bytes base(64);
    fill_content(random(), 0, base);
    std::vector<Operation> all;
    for (int i = 0; i < 8; ++i) {
      Operation o = write_of(random() % 60, 1 + random() % 4, random() % 3);
      o.kind = random() % 4 == 0 ? OperationKind::kZero : OperationKind::kWrite;
      o.issued = 1 + static_cast<Time>(i) * 10 + random() % 5;
      o.ended = random() % 8 == 0 ? kNever : o.issued + 1 + random() % 30;
      o.certain = o.ended != kNever && random() % 4 != 0;
      all.push_back(o);
    }
    const Time begin = random() % 100;
    const Window window{.begin = begin, .end = begin};
    Bytes found = base;
    for (const Operation& o : all) {
      if (random() % 3 != 0) put(found, o);
    }
    const Report report = Audit(base, all, window).run(found);
    uint64_t wrong = 0;
    for (uint64_t at = 0; at < found.size(); ++at)
      wrong += naively_legal(base, all, window, at, found[at]) ? 0 : 1;
    ASSERT_EQ(report.mismatched_bytes, wrong) << "round " << round;
  }
}

TEST(Speed, AWholeDiskOfManyRequestsTakesLessThanASecond) {
  std::mt19937_64 random(3);
  Bytes disk(64U << 20);
  Model model(disk);
  model.begin_mark("c");
  for (int i = 0; i < 2000; ++i) {
    const Operation o = write_of(random() % (60U << 20), 1 + random() % (400U << 10), random());
    model.end(model.begin(o), Outcome::kDone);
    put(disk, o);
  }
  model.end_mark("c");
  for (const char* name : {"now", "c"}) {
    const auto begin = std::chrono::steady_clock::now();
    EXPECT_TRUE(model.check(disk, *model.window(name)).clean());
    EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(1)) << name;
  }
}

}  // namespace
}  // namespace ckpt
