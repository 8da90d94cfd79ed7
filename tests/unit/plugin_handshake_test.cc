// SPDX-License-Identifier: Apache-2.0
// The table of design 3, "Session and handshake", over every combination, against its rows written
// down a second time.
#include <gtest/gtest.h>

#include "plugin/handshake.h"

namespace ckpt {
namespace {

Uuid uuid_of(uint8_t value) {
  Uuid uuid;
  uuid.bytes.fill(value);
  return uuid;
}

// The line of the primary: timeline T0 ended at 3, T1 began there; its last checkpoint is (T1, 5).
const Uuid kT0 = uuid_of(0x10);
const Uuid kT1 = uuid_of(0x11);
const Uuid kT2 = uuid_of(0x12);  // begins when our rollback to 5 is done
const Uuid kForeignTimeline = uuid_of(0xff);

constexpr uint64_t kAcceptedNumber = 100;
constexpr uint64_t kOfferedNumber = 200;
constexpr uint64_t kForeignNumber = 300;

Digest digest_of_number(uint8_t number) { return Digest{{number}}; }

CheckpointInfo checkpoint(const Uuid& timeline, uint64_t number) {
  CheckpointInfo info;
  info.id = {timeline, {number}};
  info.digest = digest_of_number(static_cast<uint8_t>(number));
  return info;
}

enum class Primary { kNew, kNewWithIntent, kLast, kLastWithIntent };
enum class Found {
  kNone,
  kLast,               // (T1, 5)
  kIntent,             // (T1, 6), digest equal
  kIntentOtherDigest,  // (T1, 6)
  kOlder,              // (T1, 4)
  kAtTheFork,          // (T0, 3): where T0 ended
  kBeforeTheFork,      // (T0, 2)
  kAfterTheFork,       // (T0, 4): on a timeline of ours, beyond where we left it
  kNewer,              // (T1, 7)
  kForeign,            // (foreign, 5)
  kForkOfRollback,     // (T2, 5)
};
enum class Incarnation { kAccepted, kOffered, kForeign };

constexpr Primary kPrimaries[] = {Primary::kNew, Primary::kNewWithIntent, Primary::kLast,
                                  Primary::kLastWithIntent};
constexpr Found kFounds[] = {
    Found::kNone,  Found::kLast,      Found::kIntent,        Found::kIntentOtherDigest,
    Found::kOlder, Found::kAtTheFork, Found::kBeforeTheFork, Found::kAfterTheFork,
    Found::kNewer, Found::kForeign,   Found::kForkOfRollback};
constexpr Incarnation kIncarnations[] = {Incarnation::kAccepted, Incarnation::kOffered,
                                         Incarnation::kForeign};

struct Case {
  Primary primary;
  Found found;
  Incarnation incarnation;
  bool rolling_back;

  [[nodiscard]] bool has_last() const {
    return primary == Primary::kLast || primary == Primary::kLastWithIntent;
  }
  [[nodiscard]] bool has_intent() const {
    return primary == Primary::kNewWithIntent || primary == Primary::kLastWithIntent;
  }
  // No other primary has been at the store in between.
  [[nodiscard]] bool is_ours() const { return incarnation != Incarnation::kForeign; }
};

VolumeRecord record_of(const Case& c) {
  VolumeRecord record;
  record.timeline = kT1;
  record.accepted = kAcceptedNumber;
  record.offered = kOfferedNumber;
  if (c.has_last()) {
    record.last = checkpoint(kT1, 5);
    record.forks = {{kT0, {3}}};
  }
  if (c.has_intent()) {
    record.intent = checkpoint(kT1, 6);
  }
  if (c.rolling_back) {
    record.rollback = RollbackTarget{{kT1, {5}}, kT2, false};
  }
  return record;
}

StoreGreeting greeting_of(const Case& c) {
  StoreGreeting greeting;
  greeting.incarnation = c.incarnation == Incarnation::kAccepted  ? kAcceptedNumber
                         : c.incarnation == Incarnation::kOffered ? kOfferedNumber
                                                                  : kForeignNumber;
  switch (c.found) {
    case Found::kNone: break;
    case Found::kLast: greeting.last = checkpoint(kT1, 5); break;
    case Found::kIntent: greeting.last = checkpoint(kT1, 6); break;
    case Found::kIntentOtherDigest:
      greeting.last = checkpoint(kT1, 6);
      greeting.last->digest = digest_of_number(99);
      break;
    case Found::kOlder: greeting.last = checkpoint(kT1, 4); break;
    case Found::kAtTheFork: greeting.last = checkpoint(kT0, 3); break;
    case Found::kBeforeTheFork: greeting.last = checkpoint(kT0, 2); break;
    case Found::kAfterTheFork: greeting.last = checkpoint(kT0, 4); break;
    case Found::kNewer: greeting.last = checkpoint(kT1, 7); break;
    case Found::kForeign: greeting.last = checkpoint(kForeignTimeline, 5); break;
    case Found::kForkOfRollback: greeting.last = checkpoint(kT2, 5); break;
  }
  return greeting;
}

// While a rollback is under way only its own two sides are right; all else waits for people.
HandshakeRow expected_rolling_back(const Case& c) {
  const bool target = c.found == Found::kLast || c.found == Found::kForkOfRollback;
  return target && c.is_ours() ? HandshakeRow::kRollBack : HandshakeRow::kDiverged;
}

HandshakeRow expected(const Case& c) {
  if (c.rolling_back) {
    return expected_rolling_back(c);
  }
  if (c.found == Found::kNone) {
    return c.has_last() ? HandshakeRow::kResync : HandshakeRow::kFirstCopy;
  }
  if (c.found == Found::kLast && c.has_last()) {
    return c.is_ours() ? HandshakeRow::kGoOn : HandshakeRow::kDiverged;
  }
  if (c.found == Found::kIntent && c.has_intent()) {
    return c.is_ours() ? HandshakeRow::kAdopt : HandshakeRow::kDiverged;
  }
  // A store that was restored names an incarnation of its own past.
  const bool older =
      c.found == Found::kOlder || c.found == Found::kAtTheFork || c.found == Found::kBeforeTheFork;
  return older && c.has_last() ? HandshakeRow::kResync : HandshakeRow::kDiverged;
}

TEST(Handshake, EveryCombination) {
  for (const Primary primary : kPrimaries) {
    for (const Found found : kFounds) {
      for (const Incarnation incarnation : kIncarnations) {
        for (const bool rolling_back : {false, true}) {
          const Case c{primary, found, incarnation, rolling_back};
          if (rolling_back && !c.has_last()) {
            continue;  // there is nothing to roll back to
          }
          EXPECT_EQ(decide_handshake(record_of(c), greeting_of(c)), expected(c))
              << "primary " << static_cast<int>(primary) << ", found " << static_cast<int>(found)
              << ", incarnation " << static_cast<int>(incarnation) << ", rolling back "
              << rolling_back;
        }
      }
    }
  }
}

// Of a store whose image was a primary's: each checkpoint that it may have answered for, alone and
// with each that it may have intended.
TEST(HandshakeOfARejoin, EveryCombination) {
  for (const Primary primary : kPrimaries) {
    for (const Found answered : kFounds) {
      for (const Found intended : kFounds) {
        if (answered == Found::kNone) {
          continue;
        }
        StoreGreeting greeting;
        greeting.is_begun = true;
        for (const Found found : {answered, intended}) {
          const auto last = greeting_of({primary, found, Incarnation::kForeign, false}).last;
          if (last) {
            greeting.bases.push_back({last->id, last->digest});
          }
        }
        const Case c{primary, answered, Incarnation::kForeign, false};
        const bool is_older = answered == Found::kOlder || answered == Found::kAtTheFork ||
                              answered == Found::kBeforeTheFork;
        const bool is_known = c.has_last() && (answered == Found::kLast || is_older);
        const bool is_exact = answered == Found::kLast || intended == Found::kLast;
        const HandshakeRow wanted = !is_known  ? HandshakeRow::kDiverged
                                    : is_exact ? HandshakeRow::kRejoin
                                               : HandshakeRow::kResync;
        EXPECT_EQ(decide_handshake(record_of(c), greeting), wanted)
            << "primary " << static_cast<int>(primary) << ", answered "
            << static_cast<int>(answered) << ", intended " << static_cast<int>(intended);
      }
    }
  }
}

// As after a promotion: the checkpoint's timeline is a new one here.
TEST(HandshakeOfARejoin, ThePromotedCheckpointIsKnownByItsOldName) {
  VolumeRecord record;
  record.timeline = kT1;
  record.last = checkpoint(kT1, 3);
  record.forks = {{kT0, {3}}};
  StoreGreeting greeting;
  greeting.is_begun = true;
  greeting.bases = {{{kT0, {3}}, record.last->digest}};
  EXPECT_EQ(decide_handshake(record, greeting), HandshakeRow::kRejoin);
  greeting.bases = {{{kT0, {2}}, digest_of_number(2)}, {{kT0, {3}}, record.last->digest}};
  EXPECT_EQ(decide_handshake(record, greeting), HandshakeRow::kRejoin) << "it was intended";
  greeting.bases = {{{kT0, {2}}, digest_of_number(2)}, {{kT0, {3}}, digest_of_number(99)}};
  EXPECT_EQ(decide_handshake(record, greeting), HandshakeRow::kResync) << "not that one";
  greeting.bases = {{{kT0, {4}}, digest_of_number(4)}};
  EXPECT_EQ(decide_handshake(record, greeting), HandshakeRow::kDiverged)
      << "answered, and lost here";
  greeting.bases = {{{kForeignTimeline, {3}}, record.last->digest}};
  EXPECT_EQ(decide_handshake(record, greeting), HandshakeRow::kDiverged);
  record.rollback = RollbackTarget{record.last->id, kT2, false};
  greeting.bases = {{{kT0, {3}}, record.last->digest}};
  EXPECT_EQ(decide_handshake(record, greeting), HandshakeRow::kDiverged);
}

// Row by row once more, as people read the table.
HandshakeRow row_of(const Case& c) { return decide_handshake(record_of(c), greeting_of(c)); }

TEST(Handshake, AnIntentIsAdoptedByItsDigestOnly) {
  const auto adopt = [](Found found) {
    return row_of({Primary::kLastWithIntent, found, Incarnation::kOffered, false});
  };
  EXPECT_EQ(adopt(Found::kIntent), HandshakeRow::kAdopt);
  EXPECT_EQ(adopt(Found::kIntentOtherDigest), HandshakeRow::kDiverged);
  EXPECT_EQ(row_of({Primary::kLast, Found::kIntent, Incarnation::kOffered, false}),
            HandshakeRow::kDiverged);
}

TEST(Handshake, AnOpenIntentDoesNotKeepTheLastFromGoingOn) {
  EXPECT_EQ(row_of({Primary::kLastWithIntent, Found::kLast, Incarnation::kAccepted, false}),
            HandshakeRow::kGoOn);
}

TEST(Handshake, AStoreThatLostAllDuringARollbackIsNotFilledFromTheHalfRestoredImage) {
  EXPECT_EQ(row_of({Primary::kLast, Found::kNone, Incarnation::kAccepted, true}),
            HandshakeRow::kDiverged);
}

}  // namespace
}  // namespace ckpt
