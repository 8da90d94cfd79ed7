// SPDX-License-Identifier: Apache-2.0
// Exports of ours, found by a made-up sysfs.
#include <gtest/gtest.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "plugin/own_export.h"

namespace ckpt::test {
namespace {

namespace fs = std::filesystem;

constexpr uint64_t kDiskBytes = uint64_t{8} << 20U;

class OwnExportTest : public testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = fs::temp_directory_path() / "ckpt-sysfs-XXXXXX";
    ASSERT_NE(mkdtemp(pattern.data()), nullptr);
    sys_ = pattern;
    fs::create_directories(sys_ / "dev/block");
  }
  void TearDown() override { fs::remove_all(sys_); }

  // A device in a folder of devices/, of so many sectors.
  fs::path add(const std::string& folder, const std::string& number, uint64_t sectors) {
    const fs::path device = sys_ / "devices" / folder;
    fs::create_directories(device);
    fs::create_directory_symlink(device, sys_ / "dev/block" / number);
    write(device / "size", std::to_string(sectors));
    return device;
  }
  static void write(const fs::path& path, const std::string& text) {
    std::ofstream(path) << text << "\n";
  }
  [[nodiscard]] std::string find(unsigned major_number, unsigned minor_number) const {
    return OwnExport(kDiskBytes, sys_).find(makedev(major_number, minor_number));
  }

  fs::path sys_;
};

TEST_F(OwnExportTest, AnNbdDeviceOfTheDisksSizeIsOne) {
  add("nbd0", "43:0", kDiskBytes / 512);
  add("nbd1", "43:16", kDiskBytes / 512 + 8);
  add("vda", "254:0", kDiskBytes / 512);
  EXPECT_EQ(find(43, 0), "nbd0");
  EXPECT_EQ(find(43, 16), "");
  EXPECT_EQ(find(254, 0), "");
  EXPECT_EQ(find(9, 9), "");
}

TEST_F(OwnExportTest, APartitionIsOnItsDisk) {
  add("nbd0", "43:0", kDiskBytes / 512);
  write(add("nbd0/nbd0p1", "43:1", 2048) / "partition", "1");
  EXPECT_EQ(find(43, 1), "nbd0");
}

TEST_F(OwnExportTest, DeviceMapperIsOnWhatIsBelow) {
  const fs::path disk = add("nbd0", "43:0", kDiskBytes / 512);
  const fs::path below = add("dm-0", "253:0", 100);
  const fs::path above = add("dm-1", "253:1", 100);
  fs::create_directories(below / "slaves");
  fs::create_directories(above / "slaves");
  fs::create_directory_symlink(disk, below / "slaves/nbd0");
  fs::create_directory_symlink(below, above / "slaves/dm-0");
  EXPECT_EQ(find(253, 1), "nbd0");
}

TEST_F(OwnExportTest, ACircleOfDevicesEnds) {
  const fs::path device = add("dm-0", "253:0", 100);
  fs::create_directories(device / "slaves");
  fs::create_directory_symlink(device, device / "slaves/dm-0");
  EXPECT_EQ(find(253, 0), "");
}

TEST_F(OwnExportTest, ALoopDeviceOverAFileThatIsGoneIsNone) {
  const fs::path device = add("loop0", "7:0", kDiskBytes / 512);
  fs::create_directories(device / "loop");
  write(device / "loop/backing_file", "/nonexistent/nbd");
  EXPECT_EQ(find(7, 0), "");
}

TEST_F(OwnExportTest, APathOnOneIsRefusedWithTheWayOut) {
  struct stat status {};
  ASSERT_EQ(stat(sys_.c_str(), &status), 0);
  add("nbd7", std::to_string(major(status.st_dev)) + ":" + std::to_string(minor(status.st_dev)),
      kDiskBytes / 512);
  const OwnExport own(kDiskBytes, sys_);
  for (const char* name : {"", "/", "/not-yet-made", "/not/yet/made/"}) {
    const auto refused = own.refuse(sys_.string() + name);
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().kind, ErrorKind::kInvalid);
    EXPECT_NE(refused.error().message().find("nbd7"), std::string::npos);
    EXPECT_NE(refused.error().message().find("state=DIR"), std::string::npos);
  }
  EXPECT_TRUE(OwnExport(kDiskBytes + 512, sys_).refuse(sys_));
  EXPECT_TRUE(own.refuse("nonexistent/ckpt/state"));
}

}  // namespace
}  // namespace ckpt::test
