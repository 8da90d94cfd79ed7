// SPDX-License-Identifier: Apache-2.0
// Files past the page cache, against a model, and the stamps of block devices by a made-up sysfs.
// The files are made in the working folder: the temporary one may be on a tmpfs.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/sysmacros.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <random>

#include "common/aligned_buffer.h"
#include "common/device_stamp.h"
#include "common/direct_file.h"

namespace ckpt {
namespace {

namespace fs = std::filesystem;

// No multiple of any unit; more than what is bounced at once.
constexpr uint64_t kBytes = (uint64_t{5} << 19U) + 777;

class DirectFileTest : public testing::TestWithParam<bool> {
 protected:
  DirectFileTest() : model_(kBytes) {
    uring_enable();
    std::string pattern = fs::current_path() / "direct-XXXXXX";
    path_ = ::mkdtemp(pattern.data());
    const RingUse ring{GetParam(), GetParam(), GetParam()};
    auto file = DirectFile::open(path_ + "/file", O_RDWR | O_CREAT, ring);
    EXPECT_TRUE(file) << file.error().message();
    file_ = std::move(*file);
    EXPECT_TRUE(file_->resize(kBytes));
  }
  ~DirectFileTest() override { fs::remove_all(path_); }

  ByteRange draw_range(uint64_t length_max) {
    const uint64_t unit = random_() % 3 == 0 ? kBlockBytes : 1;
    const uint64_t offset = random_() % kBytes / unit * unit;
    const uint64_t length = 1 + random_() % length_max;
    return {offset, std::min(length, kBytes - offset)};
  }
  std::vector<std::byte> draw_bytes(uint64_t length) {
    std::vector<std::byte> bytes(length);
    std::ranges::generate(bytes, [this] { return static_cast<std::byte>(random_()); });
    return bytes;
  }
  void expect_equal(ByteRange range) {
    std::vector<std::byte> bytes(range.length);
    ASSERT_TRUE(file_->read(range.offset, bytes));
    const auto wanted = std::span(model_).subspan(range.offset, range.length);
    ASSERT_TRUE(std::ranges::equal(bytes, wanted)) << range.offset << " " << range.length;
  }
  void write(ByteRange range) {
    const auto bytes = draw_bytes(range.length);
    ASSERT_TRUE(file_->write(range.offset, bytes));
    std::ranges::copy(bytes, model_.begin() + static_cast<ptrdiff_t>(range.offset));
  }
  void zero(ByteRange range, bool punch) {
    ASSERT_TRUE(file_->zero(range, punch));
    std::fill_n(model_.begin() + static_cast<ptrdiff_t>(range.offset), range.length, std::byte{0});
  }

  std::mt19937_64 random_{1};
  std::string path_;
  std::unique_ptr<DirectFile> file_;
  std::vector<std::byte> model_;
};

TEST_P(DirectFileTest, AnyOffsetAndLengthHoldsWhatWasWritten) {
  for (int i = 0; i < 300; ++i) {
    const ByteRange range = draw_range(i % 10 == 0 ? kBytes : 9000);
    if (random_() % 3 == 0) {
      zero(range, random_() % 2 == 0);
    } else {
      write(range);
    }
    expect_equal(draw_range(20000));
  }
  expect_equal({0, kBytes});
}

TEST_P(DirectFileTest, OthersSeeItThroughThePageCache) {
  write({4096, 8192});
  write({kBytes - 100, 100});
  ASSERT_TRUE(file_->sync());
  std::ifstream other(path_ + "/file", std::ios::binary);
  std::vector<std::byte> bytes(kBytes);
  other.read(reinterpret_cast<char*>(bytes.data()), kBytes);
  EXPECT_EQ(bytes, model_);
}

TEST_P(DirectFileTest, ManyAtOnceAlignedOrNot) {
  const AlignedBuffer aligned(16 * kBlockBytes);
  std::ranges::copy(draw_bytes(16 * kBlockBytes), aligned.span().begin());
  for (const uint64_t shift : {0U, 5U}) {
    std::vector<Transfer> transfers;
    for (uint64_t i = 0; i < 8; ++i) {
      const uint64_t offset = 3 * i * kBlockBytes + shift;
      const ByteSpan part = aligned.span().subspan(i * kBlockBytes + shift, kBlockBytes);
      transfers.push_back({offset, part});
      std::ranges::copy(part, model_.begin() + static_cast<ptrdiff_t>(offset));
    }
    ASSERT_TRUE(file_->write_many(transfers));
    expect_equal({0, 30 * kBlockBytes});
    const AlignedBuffer again(16 * kBlockBytes);
    for (uint64_t i = 0; i < transfers.size(); ++i) {
      transfers[i].buffer = again.span().subspan(i * kBlockBytes + shift, kBlockBytes);
    }
    ASSERT_TRUE(file_->read_many(transfers));
    EXPECT_TRUE(std::ranges::equal(again.span().subspan(shift, 8 * kBlockBytes),
                                   aligned.span().subspan(shift, 8 * kBlockBytes)));
  }
}

TEST_P(DirectFileTest, PastTheEndIsAnError) {
  std::vector<std::byte> bytes(8192);
  EXPECT_FALSE(file_->read(kBytes - 100, bytes));
  EXPECT_FALSE(file_->read(kBytes + 4096, bytes));
}

TEST_P(DirectFileTest, PunchingGivesSpaceBack) {
  write({0, 1 << 20});
  ASSERT_TRUE(file_->sync());
  zero({100, (1 << 20) - 200}, true);
  const auto data = file_->next_data(4096);
  ASSERT_TRUE(data);
  ASSERT_TRUE(data->has_value());
  EXPECT_GE((*data)->offset, (1U << 20U) - 4096);
  expect_equal({0, kBytes});
}

INSTANTIATE_TEST_SUITE_P(Engines, DirectFileTest, testing::Bool(),
                         [](const auto& engine) { return engine.param ? "Uring" : "Sync"; });

class DeviceStampTest : public testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = testing::TempDir() + "sysfs-XXXXXX";
    ASSERT_NE(mkdtemp(pattern.data()), nullptr);
    sys_ = pattern;
    fs::create_directories(sys_ / "dev/block");
    fs::create_directories(disk_ = sys_ / "devices/vda");
    fs::create_directories(sys_ / "devices/vda/queue");
    fs::create_directory_symlink(disk_, sys_ / "dev/block/254:0");
    write(disk_ / "diskseq", "9");
    write(disk_ / "queue/iostats", "1");
    write(disk_ / "stat", "1 0 8 0 5 0 40 0 0 0 0 3 0 24 0 2 0");
  }
  void TearDown() override { fs::remove_all(sys_); }

  static void write(const fs::path& path, const std::string& text) {
    std::ofstream(path) << text << "\n";
  }
  [[nodiscard]] FileStamp stamp(int64_t now, unsigned minor_number = 0) const {
    return stamp_of_device(makedev(254, minor_number), 4096, WallTime(now), sys_);
  }

  fs::path sys_;
  fs::path disk_;
};

TEST_F(DeviceStampTest, OnlyAWriteOrADiscardMovesIt) {
  const FileStamp before = stamp(1);
  EXPECT_EQ(before.changed, WallTime(40));
  EXPECT_EQ(before.modified, WallTime(24));
  EXPECT_EQ(before.inode, 9U);
  write(disk_ / "stat", "2 0 16 0 5 0 40 0 0 0 0 3 0 24 0 7 0");
  EXPECT_EQ(stamp(2), before);
  write(disk_ / "stat", "2 0 16 0 6 0 41 0 0 0 0 3 0 24 0 7 0");
  EXPECT_NE(stamp(3), before);
  write(disk_ / "stat", "2 0 16 0 5 0 40 0 0 0 0 4 0 25 0 7 0");
  EXPECT_NE(stamp(4), before);
}

TEST_F(DeviceStampTest, AnotherDiskAtItsPlaceIsAnother) {
  const FileStamp before = stamp(1);
  write(disk_ / "diskseq", "10");
  EXPECT_FALSE(stamp(1).same_file(before));
}

TEST_F(DeviceStampTest, APartitionHasItsDisksSequenceAndItsOwnCount) {
  const fs::path part = disk_ / "vda1";
  fs::create_directories(part);
  fs::create_directory_symlink(part, sys_ / "dev/block/254:1");
  write(part / "partition", "1");
  write(part / "stat", "1 0 8 0 5 0 16 0 0 0 0 0 0 0 0 0 0");
  EXPECT_EQ(stamp(1, 1).inode, 9U);
  EXPECT_EQ(stamp(1, 1).changed, WallTime(16));
}

TEST_F(DeviceStampTest, WhatDoesNotCountIsNeverTheSame) {
  write(disk_ / "queue/iostats", "0");
  EXPECT_NE(stamp(1), stamp(2));
  write(disk_ / "queue/iostats", "1");
  write(disk_ / "stat", "0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0");
  EXPECT_NE(stamp(1), stamp(2));
  EXPECT_NE(stamp(1, 7), stamp(2, 7)) << "a device that sysfs does not know";
}

}  // namespace
}  // namespace ckpt
