// SPDX-License-Identifier: Apache-2.0
// When a disk still is the checkpoint that it was promoted at.
#include "tools/promoted_disk.h"

#include <gtest/gtest.h>

namespace ckpt {
namespace {

CheckpointInfo promoted_at(uint64_t number) {
  CheckpointInfo checkpoint;
  checkpoint.id = {Uuid{{7}}, {number}};
  return checkpoint;
}

struct Situation {
  VolumeStatus status;
  bool as_is = false;
};

// As it was promoted.
Situation untouched() {
  Situation situation;
  situation.status.last_checkpoint = promoted_at(5);
  return situation;
}

Result<> still(const Situation& situation) {
  const PromotedDisk promoted{nullptr, promoted_at(5)};
  return check_still_promoted(promoted, situation.status, situation.as_is);
}

TEST(PromotedDisk, IsTheCheckpointWhileNothingWasWritten) {
  EXPECT_TRUE(still(untouched()));
  Situation no_backup = untouched();
  no_backup.status.last_checkpoint.reset();  // of a back-up that has none yet
  EXPECT_TRUE(still(no_backup));
}

TEST(PromotedDisk, IsItNoMoreOnceItWasWrittenTo) {
  Situation written = untouched();
  written.status.changed_bytes = 4096;
  const auto refused = still(written);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().kind, ErrorKind::kInvalid);
  EXPECT_NE(refused.error().message().find("--as-is"), std::string::npos);
  written.as_is = true;
  EXPECT_TRUE(still(written));
}

TEST(PromotedDisk, IsItNoMoreAfterAnotherCheckpoint) {
  Situation later = untouched();
  later.status.last_checkpoint = promoted_at(6);
  later.as_is = true;
  ASSERT_FALSE(still(later));
  EXPECT_EQ(still(later).error().kind, ErrorKind::kInvalid);
}

TEST(PromotedDisk, MayBeChangedAtAnyMomentByWhoIsConnected) {
  Situation used = untouched();
  used.status.connections = 1;
  used.as_is = true;
  ASSERT_FALSE(still(used));
  EXPECT_EQ(still(used).error().kind, ErrorKind::kBusy);
}

TEST(PromotedDisk, IsNotFoundWhereNoneIs) {
  OpenedVolume opened;
  opened.paths.image = "/nowhere/backup.img";
  EXPECT_FALSE(find_promoted(opened));
  opened.paths.image = "/nowhere/disk.img";
  EXPECT_FALSE(find_promoted(opened));
}

}  // namespace
}  // namespace ckpt
