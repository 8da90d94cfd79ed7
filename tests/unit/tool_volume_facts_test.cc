// SPDX-License-Identifier: Apache-2.0
// What is seen of real images and directories.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "tests/unit/control_fake_volume.h"
#include "tools/volume_facts.h"

namespace ckpt {
namespace {

namespace fs = std::filesystem;

constexpr uint64_t kSize = uint64_t{8} << 20U;

class VolumeFactsTest : public testing::Test {
 protected:
  VolumeFactsTest() {
    std::string pattern = testing::TempDir() + "facts-XXXXXX";
    directory_ = fs::canonical(::mkdtemp(pattern.data())).string();
    image_ = directory_ + "/disk.img";
  }
  ~VolumeFactsTest() override { fs::remove_all(directory_); }

  void make_image(const std::string& head = "") const {
    std::ofstream(image_) << head;
    fs::resize_file(image_, kSize);
  }
  // A state directory whose volume says what told_ is.
  void make_state(const std::string& path) {
    fs::create_directories(path);
    std::ofstream(path + "/volume") << "x";
  }
  Result<VolumeFacts> look(const VolumeName& name) {
    return look_at_volume(name, [this](const VolumeName&) -> Result<OpenedVolume> {
      ++opened_;
      if (open_error_) {
        return Unexpected(*open_error_);
      }
      auto volume = std::make_unique<FakeVolume>();
      volume->told_status = told_;
      return OpenedVolume{std::move(volume), true, {}};
    });
  }
  static ErrorKind kind_of(const Result<VolumeFacts>& facts) {
    return facts ? ErrorKind::kVoid : facts.error().kind;
  }

  std::string directory_;
  std::string image_;
  VolumeStatus told_ = FakeVolume::default_status();
  std::optional<Error> open_error_;
  int opened_ = 0;
};

TEST_F(VolumeFactsTest, AnImageThatWasNeverServed) {
  make_image();
  const auto facts = look({image_});
  ASSERT_TRUE(facts) << facts.error().message();
  EXPECT_EQ(facts->paths.state, image_ + ".ckpt");
  EXPECT_TRUE(facts->image.is_file);
  EXPECT_TRUE(facts->image.access);
  EXPECT_EQ(facts->image.size_bytes, kSize);
  EXPECT_LT(facts->image.allocated_bytes, kSize);
  EXPECT_EQ(facts->image.format, "");
  EXPECT_FALSE(facts->has_state);
  EXPECT_FALSE(facts->state.exists);
  EXPECT_TRUE(facts->state.is_writable);
  EXPECT_EQ(facts->backup.path, image_ + ".ckpt/store");
  EXPECT_EQ(facts->backup.device, facts->image.place.device);
  EXPECT_GT(facts->room.free, 0U);
  EXPECT_EQ(facts->room.size, kSize);
  EXPECT_GT(facts->maps_bytes, kSize / 16384);
  EXPECT_FALSE(facts->status);
  EXPECT_EQ(opened_, 0);
  EXPECT_FALSE(fs::exists(image_ + ".ckpt")) << "it only looks";
}

TEST_F(VolumeFactsTest, StateAndBackupElsewhere) {
  make_image();
  const auto facts = look({image_, directory_ + "/state", "embedded:" + directory_ + "/b"});
  ASSERT_TRUE(facts) << facts.error().message();
  EXPECT_EQ(facts->paths.state, directory_ + "/state");
  EXPECT_EQ(facts->backup.path, directory_ + "/b");
  EXPECT_EQ(kind_of(look({image_, "", "elsewhere"})), ErrorKind::kInvalid);
}

TEST_F(VolumeFactsTest, AVolumeSaysWhereItsBackupIs) {
  make_image();
  make_state(image_ + ".ckpt");
  told_.store->address = "embedded:" + directory_ + "/far";
  const auto facts = look({image_});
  ASSERT_TRUE(facts) << facts.error().message();
  EXPECT_TRUE(facts->has_state);
  EXPECT_TRUE(facts->served);
  EXPECT_TRUE(facts->state.exists);
  EXPECT_EQ(facts->backup.path, directory_ + "/far");
  EXPECT_EQ((*facts->status)->state, "running");
}

TEST_F(VolumeFactsTest, AServerKnowsTheImageOfAStateDirectory) {
  make_image();
  make_state(directory_ + "/state");
  told_.image = image_;
  const auto facts = look({directory_ + "/state"});
  ASSERT_TRUE(facts) << facts.error().message();
  EXPECT_EQ(facts->image.size_bytes, kSize);
  told_.image = "";
  EXPECT_EQ(kind_of(look({directory_ + "/state"})), ErrorKind::kInvalid);
  open_error_ = Error{ErrorKind::kInvalid, 0, "why"};
  EXPECT_EQ(kind_of(look({directory_ + "/state"})), ErrorKind::kInvalid);
}

TEST_F(VolumeFactsTest, WhatIsNotThere) {
  EXPECT_EQ(kind_of(look({image_})), ErrorKind::kNotFound);
  EXPECT_EQ(kind_of(look({directory_})), ErrorKind::kNotFound);
  make_state(image_ + ".ckpt");
  const auto gone = look({image_});
  EXPECT_EQ(kind_of(gone), ErrorKind::kNotFound);
  EXPECT_NE(gone.error().message().find("the image is gone"), std::string::npos);
}

TEST_F(VolumeFactsTest, ABackupByItselfIsNoVolume) {
  const std::string store = image_ + ".ckpt/store";
  make_state(store);
  std::ofstream(store + "/backup.img") << "x";
  const auto facts = look({store});
  EXPECT_EQ(kind_of(facts), ErrorKind::kInvalid);
  EXPECT_EQ(facts.error().message(), store + " is a back-up by itself: give the primary image");
  EXPECT_EQ(opened_, 0);
}

TEST_F(VolumeFactsTest, AServerThatDoesNotAnswerIsAFact) {
  make_image();
  make_state(image_ + ".ckpt");
  open_error_ = Error{ErrorKind::kTimeout, 0, "the server does not answer"};
  const auto facts = look({image_});
  ASSERT_TRUE(facts) << facts.error().message();
  ASSERT_TRUE(facts->status);
  EXPECT_EQ(facts->status->error().message(), "the server does not answer");
  EXPECT_EQ(facts->backup.path, image_ + ".ckpt/store");
}

TEST_F(VolumeFactsTest, FormatsAndOddFiles) {
  make_image("QFI\xfb");
  EXPECT_EQ(look({image_})->image.format, "qcow2");
  fs::resize_file(image_, 0);
  EXPECT_EQ(look({image_})->image.size_bytes, 0U);
  fs::remove(image_);
  ASSERT_EQ(::mkfifo(image_.c_str(), 0600), 0);
  const auto pipe = look({image_});  // and does not wait for anybody to write into it
  ASSERT_TRUE(pipe);
  EXPECT_FALSE(pipe->image.is_file || pipe->image.is_device);
}

TEST_F(VolumeFactsTest, ABackupThatIsThereCounts) {
  make_image();
  const std::string store = image_ + ".ckpt/store";
  fs::create_directories(store);
  std::ofstream(store + "/backup.img") << std::string(1U << 20U, 'x') << std::flush;
  const int fd = ::open((store + "/backup.img").c_str(), O_RDONLY);
  ::fsync(fd);  // blocks are allocated by then
  ::close(fd);
  EXPECT_GE(look({image_})->room.there, 1U << 20U);
}

TEST_F(VolumeFactsTest, Places) {
  const Place shared = look_at_place("/dev/shm/ckpt-not-there/deeper");
  EXPECT_EQ(shared.file_system, "tmpfs");
  EXPECT_FALSE(shared.exists);
  EXPECT_TRUE(shared.is_writable);
  EXPECT_TRUE(shared.holes) << shared.holes.error().message();
  const Place proc = look_at_place("/proc");
  EXPECT_TRUE(proc.exists);
  ASSERT_FALSE(proc.holes);
  EXPECT_NE(proc.holes.error().kind, ErrorKind::kInvalid) << "could not be tried";
  EXPECT_EQ(proc.file_system.substr(0, 13), "file system 0");
}

}  // namespace
}  // namespace ckpt
