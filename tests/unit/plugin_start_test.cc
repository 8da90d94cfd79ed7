// SPDX-License-Identifier: Apache-2.0
// What a start may believe: every row of design 5, "At start", and what breaks each of them.
#include <gtest/gtest.h>

#include <functional>

#include "plugin/start_decision.h"

namespace ckpt {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

using Edit = std::function<void(StartFacts&)>;

const FileStamp kImage{.device = 1,
                       .inode = 2,
                       .birth = seconds(3),
                       .size_bytes = 1 << 20U,
                       .modified = seconds(500),
                       .changed = seconds(500)};
const FileStamp kSelf{.device = 1, .inode = 9, .birth = seconds(4)};

StartFacts clean_stop() {
  StartFacts facts;
  facts.record.clean = true;
  facts.record.image = kImage;
  facts.record.self = kSelf;
  facts.record.boot_id = "boot";
  facts.record.nonce = 77;
  facts.image = kImage;
  facts.self = kSelf;
  facts.boot_id = "boot";
  facts.boot_time = seconds(100);
  facts.now = seconds(700);
  facts.regions_intact = true;
  facts.saved_map_intact = true;
  return facts;
}

// Same boot; the last write ended at 600 s, and stamped the image before that.
StartFacts killed() {
  StartFacts facts = clean_stop();
  facts.record.clean = false;
  facts.saved_map_intact = false;
  facts.image.changed = seconds(599);
  facts.image.modified = seconds(599);
  facts.maps = MapsFacts{.exact = true, .nonce = 77, .next_nonce = 77, .last_write = seconds(600)};
  return facts;
}

// Another boot, which began at 1000 s.
StartFacts power_lost() {
  StartFacts facts = killed();
  facts.boot_id = "next boot";
  facts.boot_time = seconds(1000);
  facts.maps.reset();
  return facts;
}

void expect_source(StartFacts facts, ChangedSource source, const Edit& edit = {}) {
  if (edit) {
    edit(facts);
  }
  const StartDecision decision = decide_start(facts);
  EXPECT_EQ(decision.source, source) << decision.reason;
  EXPECT_EQ(decision.reason.empty(), source != ChangedSource::kEverything);
}

// What makes everything count as changed, whatever else is so.
const std::vector<std::pair<const char*, Edit>> kAlwaysEverything{
    {"image on another device", [](StartFacts& f) { f.image.device = 5; }},
    {"another image", [](StartFacts& f) { f.image.inode = 5; }},
    {"image's inode used again", [](StartFacts& f) { f.image.birth = seconds(5); }},
    {"state on another device", [](StartFacts& f) { f.self.device = 5; }},
    {"state copied", [](StartFacts& f) { f.self.inode = 5; }},
    {"state's inode used again", [](StartFacts& f) { f.self.birth = seconds(5); }},
    {"everything on record", [](StartFacts& f) { f.record.everything = true; }},
    {"regions missing", [](StartFacts& f) { f.regions_intact = false; }},
};

TEST(Start, AfterACleanStopTheSavedMapCounts) {
  expect_source(clean_stop(), ChangedSource::kSavedMap);
  EXPECT_FALSE(decide_start(clean_stop()).had_clients);
}

TEST(Start, ACleanStopCountsInAnyBoot) {
  expect_source(clean_stop(), ChangedSource::kSavedMap, [](StartFacts& f) {
    f.boot_id = "next boot";
    f.boot_time = seconds(1000);
  });
}

TEST(Start, ADeviceIsBelievedAfterACleanStopInTheSameBootOnly) {
  const Edit device = [](StartFacts& f) { f.is_device = true; };
  expect_source(clean_stop(), ChangedSource::kSavedMap, device);
  expect_source(killed(), ChangedSource::kEverything, device);
  expect_source(power_lost(), ChangedSource::kEverything, device);
  expect_source(clean_stop(), ChangedSource::kEverything, [](StartFacts& f) {
    f.is_device = true;
    f.boot_id = "next boot";
  });
}

TEST(Start, AfterACleanStopAnyTouchOfTheImageIsNoticed) {
  for (const Edit& edit : {Edit([](StartFacts& f) { f.image.changed += WallTime(1); }),
                           Edit([](StartFacts& f) { f.image.changed -= WallTime(1); }),
                           Edit([](StartFacts& f) { f.image.modified += WallTime(1); }),
                           Edit([](StartFacts& f) { f.image.size_bytes += 1; }),
                           Edit([](StartFacts& f) { f.saved_map_intact = false; })}) {
    expect_source(clean_stop(), ChangedSource::kEverything, edit);
  }
}

TEST(Start, AfterAKillTheWrittenMapsCount) { expect_source(killed(), ChangedSource::kWrittenMaps); }

// Others may have written since, and their stamps would be earlier than ours.
TEST(Start, AfterAKillAClockThatWasSetBackMeansEverything) {
  for (const WallTime now : {milliseconds(599899), milliseconds(10000)}) {
    expect_source(killed(), ChangedSource::kEverything, [&](StartFacts& f) { f.now = now; });
  }
  expect_source(killed(), ChangedSource::kWrittenMaps,
                [](StartFacts& f) { f.now = milliseconds(599950); });
  expect_source(clean_stop(), ChangedSource::kSavedMap, [](StartFacts& f) { f.now = seconds(1); });
}

TEST(Start, AKillWhileTheRecordWasWrittenLeavesEitherGeneration) {
  expect_source(killed(), ChangedSource::kWrittenMaps, [](StartFacts& f) {
    f.maps->nonce = 76;  // the record's new generation is durable, the maps do not know
  });
  expect_source(killed(), ChangedSource::kWrittenMaps, [](StartFacts& f) {
    f.maps->next_nonce = 78;  // the new one is not
  });
  expect_source(killed(), ChangedSource::kEverything, [](StartFacts& f) {
    f.maps->nonce = 76;
    f.maps->next_nonce = 78;
  });
}

TEST(Start, AfterAKillMissingOrForeignMapsMeanEverything) {
  expect_source(killed(), ChangedSource::kEverything, [](StartFacts& f) { f.maps.reset(); });
}

TEST(Start, AfterAKillInexactMapsLeaveTheRegionMarks) {
  expect_source(killed(), ChangedSource::kRegionMarks,
                [](StartFacts& f) { f.maps->exact = false; });
}

TEST(Start, AfterAKillALaterChangeOfTheImageMeansEverything) {
  expect_source(killed(), ChangedSource::kWrittenMaps,
                [](StartFacts& f) { f.image.changed = seconds(600); });
  expect_source(killed(), ChangedSource::kEverything,
                [](StartFacts& f) { f.image.changed = seconds(600) + WallTime(1); });
}

TEST(Start, AWriteInFlightMayHaveLandedALittleLater) {
  const auto in_flight = [](WallTime changed) {
    return [changed](StartFacts& f) {
      f.maps->writes_in_flight = 1;
      f.image.changed = changed;
    };
  };
  expect_source(killed(), ChangedSource::kWrittenMaps, in_flight(seconds(600) + milliseconds(500)));
  expect_source(killed(), ChangedSource::kEverything, in_flight(seconds(700)));
}

TEST(Start, AfterAPowerLossTheRegionMarksCount) {
  expect_source(power_lost(), ChangedSource::kRegionMarks);
}

TEST(Start, AfterAPowerLossMapsOfThatBootAreNotLookedAt) {
  expect_source(power_lost(), ChangedSource::kRegionMarks,
                [](StartFacts& f) { f.maps = killed().maps; });
}

TEST(Start, AfterAPowerLossAChangeInThisBootMeansEverything) {
  expect_source(power_lost(), ChangedSource::kRegionMarks,
                [](StartFacts& f) { f.image.changed = seconds(1000) - WallTime(1); });
  expect_source(power_lost(), ChangedSource::kEverything,
                [](StartFacts& f) { f.image.changed = seconds(1000); });
}

TEST(Start, WhatDoesNotFitMeansEverythingInEveryCase) {
  for (const auto& [name, edit] : kAlwaysEverything) {
    for (const StartFacts& facts : {clean_stop(), killed(), power_lost()}) {
      SCOPED_TRACE(name);
      expect_source(facts, ChangedSource::kEverything, edit);
    }
  }
}

TEST(Start, ClientsAreRememberedOrAssumed) {
  StartFacts facts = killed();
  EXPECT_FALSE(decide_start(facts).had_clients);
  facts.maps->connections = 1;
  EXPECT_TRUE(decide_start(facts).had_clients);
  facts.maps->exact = false;
  EXPECT_TRUE(decide_start(facts).had_clients);
  EXPECT_TRUE(decide_start(power_lost()).had_clients);
}

// A killed server may have had clients whose caches a rollback would make stale; that something
// does not fit is no reason to think that there were none.
TEST(Start, ClientsAreAssumedWhereNothingFits) {
  StartFacts facts = killed();
  facts.maps->connections = 1;
  facts.regions_intact = false;
  EXPECT_TRUE(decide_start(facts).had_clients);
}

}  // namespace
}  // namespace ckpt
