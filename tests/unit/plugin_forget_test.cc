// SPDX-License-Identifier: Apache-2.0
// What the end of protection removes, what it leaves, and when it is refused.
#include <gtest/gtest.h>

#include "backupd/store/volume_file.h"
#include "plugin/forget.h"
#include "tests/unit/plugin_fakes.h"
#include "tests/unit/volume_on_files.h"

namespace ckpt::test {
namespace {

namespace fs = std::filesystem;

class ForgetTest : public testing::Test {
 protected:
  Result<ForgetOutcome> forget(bool agree = true) {
    return forget_volume(files_.state, files_.image, [&](const std::string& remote) {
      asked_.push_back(remote);
      return agree;
    });
  }
  void expect_forgotten() {
    const auto outcome = forget();
    ASSERT_DONE(outcome);
    EXPECT_TRUE(outcome->left.empty()) << outcome->left.front();
    EXPECT_EQ(outcome->remote_left, "");
    EXPECT_FALSE(fs::exists(files_.state));
    EXPECT_FALSE(fs::exists(files_.store));
  }
  // Nothing was asked or removed, and the error says why.
  void expect_refused(ErrorKind kind, const std::string& text) {
    const auto before = files_.everything();
    const auto refused = forget();
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().kind, kind);
    EXPECT_NE(refused.error().message().find(text), std::string::npos) << refused.error().message();
    EXPECT_TRUE(asked_.empty());
    EXPECT_TRUE(files_.everything() == before);
  }
  void expect_image_as_it_was() const {
    EXPECT_TRUE(VolumeOnFiles::content(files_.image) ==
                std::string(kBlockBytes, 'b') +
                    std::string(VolumeOnFiles::kSizeBytes - kBlockBytes, 'a'));
  }
  void promote() const {
    const auto directory = PosixDirectory::open(files_.store, false, RingUse{});
    ASSERT_DONE(directory);
    const auto store = VolumeFile::open(**directory);
    ASSERT_DONE(store);
    ASSERT_DONE((*store)->update([](StoreRecord& record) { record.promoted = true; }));
  }

  VolumeOnFiles files_;
  std::vector<std::string> asked_;
};

TEST_F(ForgetTest, RemovesAllButTheImage) {
  files_.serve_checkpoint_and_write('a', 'b');
  expect_forgotten();
  EXPECT_EQ(asked_, std::vector<std::string>{""}) << "once, and of no other back-up";
  expect_image_as_it_was();
}

TEST_F(ForgetTest, RemovesABackupElsewhere) {
  files_.store = files_.folder + "/backup";
  files_.serve_checkpoint_and_write('a', 'b');
  ASSERT_TRUE(fs::exists(files_.store + "/backup.img"));
  expect_forgotten();
}

TEST_F(ForgetTest, RemovesTheMapsThatAKilledServerLeft) {
  files_.serve_checkpoint_and_write('a', 'b');
  files_.serve_and_kill([](Volume& volume) { VolumeOnFiles::write(volume, 0, "c"); });
  const auto memory = TmpfsMemoryStore::open();
  ASSERT_DONE(memory);
  const std::string maps = (*memory)->path() + "/" + files_.record().maps_name;
  ASSERT_TRUE(fs::is_regular_file(maps));
  expect_forgotten();
  EXPECT_FALSE(fs::exists(maps));
}

TEST_F(ForgetTest, NobodyAgrees) {
  files_.serve_checkpoint_and_write('a', 'b');
  const auto before = files_.everything();
  const auto refused = forget(false);
  EXPECT_KIND(kVoid, refused);
  EXPECT_NE(refused.error().message().find("nothing changed"), std::string::npos);
  EXPECT_TRUE(files_.everything() == before);
}

TEST_F(ForgetTest, WhatIsInUseIsKept) {
  files_.serve_checkpoint_and_write('a', 'b');
  for (const std::string& path : {files_.image, files_.state, files_.store}) {
    const UniqueFd lock = VolumeOnFiles::locked(path);
    expect_refused(ErrorKind::kBusy, path + " is in use by a server or another tool: stop it");
  }
}

TEST_F(ForgetTest, TheBackupOfAnotherVolumeIsKept) {
  files_.serve_checkpoint_and_write('a', 'b');
  const Uuid own = files_.record().volume;
  files_.change_record([](VolumeRecord& record) { record.volume = uuid_of(9); });
  expect_refused(ErrorKind::kInvalid,
                 files_.store + " is the back-up of another volume, " + own.to_string());
}

TEST_F(ForgetTest, APromotedBackupIsADiskOfItsOwn) {
  files_.store = files_.folder + "/backup";
  files_.serve_checkpoint_and_write('a', 'b');
  promote();
  const auto outcome = forget();
  ASSERT_DONE(outcome);
  EXPECT_EQ(outcome->left, std::vector<std::string>{files_.store});
  EXPECT_TRUE(fs::exists(files_.store + "/backup.img"));
  EXPECT_FALSE(fs::exists(files_.state));
}

// Its record is lost, but beside its image is the state that a disk has.
TEST_F(ForgetTest, APromotedBackupIsKnownWithoutItsRecord) {
  files_.store = files_.folder + "/backup";
  files_.serve_checkpoint_and_write('a', 'b');
  fs::remove(files_.store + "/volume");
  fs::create_directory(files_.store + "/backup.img.ckpt");
  const auto outcome = forget();
  ASSERT_DONE(outcome);
  EXPECT_EQ(outcome->left, std::vector<std::string>{files_.store});
  EXPECT_TRUE(fs::exists(files_.store + "/backup.img"));
}

TEST_F(ForgetTest, ABackupBehindBackupdIsNamedAndLeft) {
  files_.serve_checkpoint_and_write('a', 'b');
  files_.change_record([](VolumeRecord& record) { record.store_place = "host:7000"; });
  const auto outcome = forget();
  ASSERT_DONE(outcome);
  EXPECT_EQ(asked_, std::vector<std::string>{"host:7000"});
  EXPECT_EQ(outcome->remote_left, "host:7000");
  EXPECT_FALSE(fs::exists(files_.state));
}

TEST_F(ForgetTest, FoldersWithOthersFilesStay) {
  files_.serve_checkpoint_and_write('a', 'b');
  for (const std::string& folder : {files_.state, files_.store}) {
    std::ofstream(folder + "/notes.txt") << "mine";
  }
  const auto outcome = forget();
  ASSERT_DONE(outcome);
  EXPECT_EQ(outcome->left, (std::vector<std::string>{files_.store, files_.state}));
  EXPECT_EQ(VolumeOnFiles::content(files_.state + "/notes.txt"), "mine");
  EXPECT_EQ(VolumeOnFiles::content(files_.store + "/notes.txt"), "mine");
  EXPECT_FALSE(fs::exists(files_.state + "/volume"));
  EXPECT_FALSE(fs::exists(files_.store + "/volume"));
}

// Until the last moment it says where everything is.
TEST_F(ForgetTest, WhatWasInterruptedGoesOn) {
  files_.serve_checkpoint_and_write('a', 'b');
  fs::create_directory(files_.state + "/restore.lock");  // cannot be removed as a file
  const auto stopped = forget();
  ASSERT_FALSE(stopped);
  EXPECT_NE(stopped.error().message().find("restore.lock"), std::string::npos)
      << stopped.error().message();
  EXPECT_FALSE(fs::exists(files_.store));
  EXPECT_TRUE(fs::exists(files_.state + "/volume"));
  fs::remove(files_.state + "/restore.lock");
  expect_forgotten();
  expect_image_as_it_was();
}

TEST_F(ForgetTest, ADamagedRecordDoesNotKeepItsOwnBackup) {
  files_.serve_checkpoint_and_write('a', 'b');
  const auto size = fs::file_size(files_.state + "/volume");
  std::ofstream(files_.state + "/volume") << std::string(size, 'x');
  expect_forgotten();
}

TEST_F(ForgetTest, TheImageMayBeGone) {
  files_.serve_checkpoint_and_write('a', 'b');
  fs::remove(files_.image);
  expect_forgotten();
}

TEST_F(ForgetTest, NoSuchVolumeToForget) {
  expect_refused(ErrorKind::kNotFound, files_.state);
  EXPECT_FALSE(fs::exists(files_.state)) << "it was not made";
  fs::create_directory(files_.state);
  expect_refused(ErrorKind::kNotFound, "volume");
}

}  // namespace
}  // namespace ckpt::test
