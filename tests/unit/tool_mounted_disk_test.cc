// SPDX-License-Identifier: Apache-2.0
// What is decided about the disk below a file system before anything is unmounted. The guest tests
// have real mounts.
#include <gtest/gtest.h>
#include <sys/stat.h>

#include "tests/unit/control_fake_volume.h"
#include "tools/mounted_disk.h"
#include "tools/work_folder.h"

namespace ckpt {
namespace {

class MountedDiskTest : public testing::Test {
 protected:
  MountedDiskTest() {
    // Its loop device would be of a file that nobody serves: it is down.
    record_.device = "/dev/loop0";
    record_.file = folder_->path() + "/disk";
    status_ = FakeVolume::default_status();
    status_.uris = {"nbd+unix:///?socket=" + folder_->path() + "/socket"};
  }
  void record_mount(const std::string& point, const std::string& source) {
    record_.mounts.push_back({point, source, "ext4", "rw"});
  }
  [[nodiscard]] MountedDisk recorded() const {
    auto disk = MountedDisk::recorded(record_, status_);
    EXPECT_TRUE(disk) << disk.error().message();
    return std::move(*disk);
  }
  static void expect_error(const Error& error, ErrorKind kind, const std::string& text) {
    EXPECT_EQ(error.kind, kind);
    EXPECT_NE(error.message().find(text), std::string::npos) << error.message();
  }

  Result<WorkFolder> folder_ = WorkFolder::make(testing::TempDir(), "mounted-disk");
  ProcessRecord record_;
  VolumeStatus status_;
};

TEST_F(MountedDiskTest, AFolderOfTheVolumeWouldBeRolledBackWithIt) {
  struct stat status {};
  ASSERT_EQ(::stat(folder_->path().c_str(), &status), 0);
  Mount own;
  own.point = "/srv/data";
  own.device = status.st_dev;
  Mount other = own;
  other.device = status.st_dev + 1;
  Mount down = own;
  down.device = 0;
  EXPECT_TRUE(check_elsewhere(folder_->path(), {other, down}));
  const auto inside = check_elsewhere(folder_->path(), {other, own});
  ASSERT_FALSE(inside);
  expect_error(inside.error(), ErrorKind::kInvalid,
               folder_->path() + " is on the volume itself, at /srv/data: give another folder");
  const auto absent = check_elsewhere(folder_->path() + "/none", {});
  ASSERT_FALSE(absent);
  expect_error(absent.error(), ErrorKind::kNotFound, folder_->path() + "/none");
}

TEST_F(MountedDiskTest, AMountOfAnotherDiskIsNotFound) {
  const auto found = MountedDisk::find({"/proc"}, status_);
  ASSERT_FALSE(found);
  EXPECT_EQ(found.error().kind, ErrorKind::kInvalid);
  const auto none = MountedDisk::find({folder_->path()}, status_);
  ASSERT_FALSE(none);
  expect_error(none.error(), ErrorKind::kNotFound, folder_->path());
}

TEST_F(MountedDiskTest, WhatIsDownIsAsItIsOnRecord) {
  record_mount(folder_->path(), "/dev/loop0p1");
  const MountedDisk disk = recorded();
  EXPECT_EQ(disk.disk().device, "/dev/loop0");
  EXPECT_EQ(disk.disk().file, record_.file);
  EXPECT_EQ(disk.disk().uri, status_.uris.front());
  ASSERT_EQ(disk.mounts().size(), 1U);
  EXPECT_EQ(disk.mounts().front().point, folder_->path());
  EXPECT_EQ(disk.mounts().front().source, "/dev/loop0p1");
  EXPECT_EQ(disk.mounts().front().type, "ext4");
  EXPECT_EQ(disk.mounts().front().options, "rw");
  EXPECT_EQ(disk.mounts().front().device, 0U) << "it is not mounted";
}

TEST_F(MountedDiskTest, AnythingElseAtItsPlaceIsBusy) {
  record_mount("/proc", "/dev/loop0");
  const auto disk = MountedDisk::recorded(record_, status_);
  ASSERT_FALSE(disk);
  expect_error(disk.error(), ErrorKind::kBusy, "is mounted here, and was /dev/loop0");
}

// Nothing is rolled back then: the disk could not be brought up again.
TEST_F(MountedDiskTest, NothingIsDoneWithoutAServer) {
  FakeVolume volume;
  MountedDisk unreached = recorded();
  const auto refused = roll_back_below(unreached, volume, {}, {});
  ASSERT_FALSE(refused);
  expect_error(refused.error(), ErrorKind::kUnreachable, status_.uris.front());
  status_.uris.clear();
  MountedDisk unserved = recorded();
  const auto nowhere = roll_back_below(unserved, volume, {}, {});
  ASSERT_FALSE(nowhere);
  expect_error(nowhere.error(), ErrorKind::kInvalid,
               "/dev/loop0: the volume's server listens nowhere");
  EXPECT_EQ(volume.calls, 0);
}

TEST_F(MountedDiskTest, WhatIsLeftToDoIsSaid) {
  record_mount(folder_->path(), "/dev/loop0p1");
  status_.uris.clear();
  const auto up = recorded().bring_up();
  ASSERT_FALSE(up);
  expect_error(up.error(), ErrorKind::kHalfway,
               "What is left to do; serve the disk with nbdfuse " + record_.file);
  expect_error(up.error(), ErrorKind::kHalfway, "; mount /dev/loop0p1 at " + folder_->path());
}

}  // namespace
}  // namespace ckpt
