// SPDX-License-Identifier: Apache-2.0
// Fail-over on real files: a store's image becomes a primary, and the old primary's image a store.
#include <gtest/gtest.h>

#include "backupd/store/volume_file.h"
#include "plugin/promote.h"
#include "plugin/rejoin.h"
#include "plugin/role_change.h"
#include "tests/unit/plugin_fakes.h"
#include "tests/unit/volume_on_files.h"

namespace ckpt::test {
namespace {

namespace fs = std::filesystem;

const auto kAgree = [](const auto& /*what*/) { return Result<>(); };
const auto kDecline = [](const auto& /*what*/) {
  return Result<>(fail(ErrorKind::kVoid, "declined"));
};

StoreRecord store_record(const std::string& path) {
  const auto directory = PosixDirectory::open(path, false, RingUse{});
  return (*VolumeFile::open(**directory))->record();
}

// The error's kind, if it names that.
template <typename T>
std::optional<ErrorKind> kind_of(const Result<T>& result, const std::string& part) {
  EXPECT_FALSE(result);
  if (result) {
    return std::nullopt;
  }
  EXPECT_NE(result.error().message().find(part), std::string::npos) << result.error().message();
  return result.error().kind;
}

// A primary with its back-up in a folder beside it, at checkpoint "first", and written to since.
class FailOverTest : public testing::Test {
 protected:
  void SetUp() override {
    files_.store = files_.folder + "/kept";
    files_.serve_checkpoint_and_write('a', 'b');
    volume_ = files_.record().volume;
    shelf_ = files_.folder + "/shelf";
    fs::create_directory(shelf_);
  }
  [[nodiscard]] Result<PromoteOutcome> promote_it(
      const std::function<Result<>(const CheckpointInfo&)>& agree = kAgree) const {
    return promote({files_.store, false, false, {}, agree});
  }
  [[nodiscard]] Result<RejoinOutcome> rejoin_it(
      const std::function<Result<>(const RejoinPlan&)>& agree = kAgree) const {
    return rejoin({files_.image, files_.state, shelf_, false, false, "embedded", {}, agree});
  }
  [[nodiscard]] std::string rejoined() const { return shelf_ + "/" + volume_.to_string(); }
  static std::string disk(char first) {
    return std::string(kBlockBytes, first) +
           std::string(VolumeOnFiles::kSizeBytes - kBlockBytes, 'a');
  }
  // The back-up's image, with all that is confirmed.
  [[nodiscard]] std::string applied() const {
    auto directory = PosixDirectory::open(rejoined(), false, RingUse{});
    StoreOptions options;
    options.volume = volume_;
    options.size_bytes = VolumeOnFiles::kSizeBytes;
    const auto store = Store::open(std::move(*directory), options);
    EXPECT_TRUE(store && (*store)->finish_applying());
    return VolumeOnFiles::content(rejoined() + "/backup.img");
  }
  // The promoted image, served with the store that rejoined.
  void serve_promoted(const std::function<void(Volume&)>& act) const {
    LocalOptions options;
    options.image_path = files_.store + "/backup.img";
    options.store_place = rejoined();
    options.is_place_said = true;
    auto local = LocalVolume::open(options);
    ASSERT_DONE(local);
    (*local)->start_pumps();
    act((*local)->volume());
    ASSERT_DONE((*local)->close());
  }

  VolumeOnFiles files_;
  Uuid volume_;
  std::string shelf_;
};

TEST_F(FailOverTest, APromotedImageIsTheCheckpointWithAStateOfItsOwn) {
  const auto promoted = promote_it();
  ASSERT_DONE(promoted);
  EXPECT_EQ(promoted->volume, volume_);
  EXPECT_EQ(promoted->image, files_.store + "/backup.img");
  EXPECT_FALSE(promoted->was_promoted);
  EXPECT_TRUE(VolumeOnFiles::content(promoted->image) == disk('a'));
  const StoreRecord store = store_record(files_.store);
  EXPECT_TRUE(store.is_handed_over());
  const VolumeRecord origin = origin_of(store);
  EXPECT_EQ(origin.timeline, promoted->checkpoint.id.timeline);
  EXPECT_EQ(origin.forks.back(), files_.record().last->id);
  EXPECT_EQ(origin.highest, promoted->checkpoint.id.number);
  EXPECT_TRUE(origin.unplaced);
  EXPECT_TRUE(fs::exists(promoted->image + ".ckpt/volume"));
  const auto again = promote_it(kDecline);  // nobody is asked
  ASSERT_DONE(again);
  EXPECT_TRUE(again->was_promoted);
  EXPECT_EQ(again->checkpoint.id, promoted->checkpoint.id);
}

TEST_F(FailOverTest, APromotionThatIsDeclinedOrInTheWayChangesNothing) {
  const auto before = files_.everything();
  EXPECT_EQ(kind_of(promote_it(kDecline), "declined"), ErrorKind::kVoid);
  const auto lock = VolumeOnFiles::locked(files_.store);
  EXPECT_EQ(kind_of(promote_it(), files_.store), ErrorKind::kBusy);
  EXPECT_EQ(files_.everything(), before);
}

TEST_F(FailOverTest, AStoreOfTheImageThatIsThereNeedsARollback) {
  VolumeOnFiles other;
  other.serve_checkpoint_and_write('a', 'b');
  EXPECT_EQ(kind_of(promote({other.store, false, false, {}, kAgree}), "rollback"),
            ErrorKind::kInvalid);
  ASSERT_DONE(promote({other.store, true, false, {}, kAgree}));
}

TEST_F(FailOverTest, TheOldImageMovesWithWhatIsStale) {
  ASSERT_DONE(promote_it());
  const CheckpointInfo last = *files_.record().last;
  RejoinPlan asked;
  const auto outcome = rejoin_it([&](const RejoinPlan& plan) {
    asked = plan;
    return Result<>();
  });
  ASSERT_DONE(outcome);
  EXPECT_EQ(asked.base->id, last.id);
  EXPECT_EQ(asked.stale_bytes, kBlockBytes);
  EXPECT_EQ(outcome->store_path, rejoined());
  EXPECT_EQ(outcome->volume, volume_);
  EXPECT_FALSE(outcome->was_rejoined);
  EXPECT_FALSE(fs::exists(files_.image));
  EXPECT_FALSE(fs::exists(files_.state));
  EXPECT_TRUE(VolumeOnFiles::content(rejoined() + "/backup.img") == disk('b'));
  const StoreRecord store = store_record(rejoined());
  ASSERT_TRUE(store.rejoined);
  EXPECT_EQ(store.rejoined->bases, (std::vector<BaseCheckpoint>{{last.id, last.digest}}));
  EXPECT_FALSE(store.last);
}

TEST_F(FailOverTest, TheNewPrimaryMakesABackUpOfIt) {
  ASSERT_DONE(promote_it());
  ASSERT_DONE(rejoin_it());
  serve_promoted([](Volume& volume) {
    VolumeOnFiles::write(volume, 3 * kBlockBytes, std::string(kBlockBytes, 'c'));
    VolumeOnFiles::make_checkpoint(volume, "again");
  });
  EXPECT_FALSE(store_record(rejoined()).rejoined);
  std::string expected = disk('a');
  expected.replace(3 * kBlockBytes, kBlockBytes, kBlockBytes, 'c');
  EXPECT_TRUE(VolumeOnFiles::content(files_.store + "/backup.img") == expected);
  EXPECT_TRUE(applied() == expected);
}

TEST_F(FailOverTest, WhoIsThePrimaryDoesNotRejoin) {
  EXPECT_EQ(kind_of(rejoin_it(), "was not promoted"), ErrorKind::kInvalid);
  EXPECT_TRUE(fs::exists(files_.image));
  EXPECT_FALSE(files_.record().superseded);
  files_.serve([](Volume& volume) { VolumeOnFiles::make_checkpoint(volume, "second"); });
}

TEST_F(FailOverTest, ARejoinThatIsDeclinedOrInTheWayMovesNothing) {
  ASSERT_DONE(promote_it());
  EXPECT_EQ(kind_of(rejoin_it(kDecline), "declined"), ErrorKind::kVoid);
  EXPECT_TRUE(files_.record().superseded);
  {
    const auto lock = VolumeOnFiles::locked(files_.image);
    EXPECT_EQ(kind_of(rejoin_it(), files_.image), ErrorKind::kBusy);
  }
  fs::create_directory(rejoined());
  EXPECT_EQ(kind_of(rejoin_it(), "is there already"), ErrorKind::kInvalid);
  fs::remove(rejoined());
  files_.change_record([](VolumeRecord& record) { record.suspect = true; });
  EXPECT_EQ(kind_of(rejoin_it(), "sync"), ErrorKind::kInvalid);
  EXPECT_TRUE(fs::exists(files_.image));
  EXPECT_TRUE(fs::is_empty(shelf_));
  files_.change_record([](VolumeRecord& record) { record.suspect = false; });
  ASSERT_DONE(rejoin_it());
}

TEST_F(FailOverTest, WhatWasInterruptedBeforeTheOldNameWentIsEnded) {
  ASSERT_DONE(promote_it());
  EXPECT_EQ(kind_of(rejoin_it(kDecline), "declined"), ErrorKind::kVoid);  // it knows now
  fs::copy(files_.state, files_.folder + "/state-then", fs::copy_options::recursive);
  ASSERT_DONE(rejoin_it());
  fs::create_hard_link(rejoined() + "/backup.img", files_.image);
  fs::rename(files_.folder + "/state-then", files_.state);
  const auto again = rejoin_it(kDecline);
  ASSERT_DONE(again);
  EXPECT_TRUE(again->was_rejoined);
  EXPECT_FALSE(fs::exists(files_.image));
  EXPECT_FALSE(fs::exists(files_.state));
  EXPECT_TRUE(store_record(rejoined()).rejoined);
}

TEST_F(FailOverTest, BasesAreGivenUpOfWhatRejoinedOnly) {
  EXPECT_EQ(kind_of(discard_bases(files_.store), "rejoined"), ErrorKind::kInvalid);
  ASSERT_DONE(promote_it());
  ASSERT_DONE(rejoin_it());
  {
    const auto lock = VolumeOnFiles::locked(rejoined());
    EXPECT_EQ(kind_of(discard_bases(rejoined()), rejoined()), ErrorKind::kBusy);
  }
  ASSERT_DONE(discard_bases(rejoined()));
  EXPECT_TRUE(store_record(rejoined()).rejoined->bases.empty());
  serve_promoted([](Volume& volume) { VolumeOnFiles::make_checkpoint(volume, "again"); });
  EXPECT_TRUE(applied() == disk('a'));
}

}  // namespace
}  // namespace ckpt::test
