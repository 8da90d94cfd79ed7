// SPDX-License-Identifier: Apache-2.0
// Exports to files: they come to exist whole, at the end, and in nobody's place by mistake.
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <filesystem>
#include <fstream>
#include <sstream>

#include "tools/destination.h"

namespace ckpt {
namespace {

namespace fs = std::filesystem;

class RawDestinationTest : public testing::Test {
 protected:
  static constexpr uint64_t kSize = uint64_t{1} << 20U;

  RawDestinationTest() {
    std::string pattern = testing::TempDir() + "destination-XXXXXX";
    folder_ = fs::canonical(::mkdtemp(pattern.data()));
    path_ = folder_ / "disk.raw";
  }
  ~RawDestinationTest() override { fs::remove_all(folder_); }

  // A checkpoint with something in one block and holes elsewhere, up to the end.
  static void fill(Destination& destination) {
    ASSERT_TRUE(destination.begin({}, kSize));
    ASSERT_TRUE(destination.write(kHead, std::vector<std::byte>(kBlockBytes, std::byte{'x'})));
    ASSERT_TRUE(destination.zero({0, kHead}));
    ASSERT_TRUE(destination.zero({kHead + kBlockBytes, kSize - kHead - kBlockBytes}));
  }
  void export_to(const fs::path& path, bool force) const {
    const auto destination = open_raw_destination(path, force);
    ASSERT_TRUE(destination) << destination.error().message();
    ASSERT_NO_FATAL_FAILURE(fill(**destination));
    const auto finished = (*destination)->finish();
    EXPECT_TRUE(finished) << finished.error().message();
  }
  static void expect_exported(const fs::path& path) {
    std::string disk(kSize, '\0');
    disk.replace(kHead, kBlockBytes, std::string(kBlockBytes, 'x'));
    EXPECT_TRUE(content(path) == disk);
  }
  static void expect_refused(const fs::path& path, bool force, ErrorKind kind,
                             const std::string& text) {
    const auto refused = open_raw_destination(path, force);
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().kind, kind);
    EXPECT_EQ(refused.error().message().find(path.string() + text), 0U)
        << refused.error().message();
  }
  static void make_file(const fs::path& path) { std::ofstream(path) << "older"; }
  static std::string content(const fs::path& path) {
    std::ostringstream text;
    text << std::ifstream(path, std::ios::binary).rdbuf();
    return text.str();
  }
  [[nodiscard]] std::vector<fs::path> files() const {
    std::vector<fs::path> names;
    for (const auto& entry : fs::directory_iterator(folder_)) {
      names.push_back(entry.path());
    }
    return names;
  }

  static constexpr uint64_t kHead = 5 * kBlockBytes;
  fs::path folder_;
  fs::path path_;
};

TEST_F(RawDestinationTest, AppearsWholeAtTheEnd) {
  const auto destination = open_raw_destination(path_, false);
  ASSERT_TRUE(destination);
  EXPECT_EQ((*destination)->description(), "");
  ASSERT_NO_FATAL_FAILURE(fill(**destination));
  EXPECT_TRUE(files().empty()) << files().front();
  ASSERT_TRUE((*destination)->finish());
  EXPECT_EQ(files(), std::vector{path_});
  expect_exported(path_);
}

TEST_F(RawDestinationTest, IsTheOwnersAloneAndHasHoles) {
  export_to(path_, false);
  struct stat status {};
  ASSERT_EQ(::stat(path_.c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 07777U, 0600U);
  EXPECT_LT(status.st_blocks * 512, static_cast<off_t>(kSize / 2));
}

TEST_F(RawDestinationTest, NothingIsLeftOfOneThatIsNotFinished) {
  make_file(path_);
  {
    const auto destination = open_raw_destination(path_, true);
    ASSERT_TRUE(destination);
    ASSERT_NO_FATAL_FAILURE(fill(**destination));
  }
  EXPECT_EQ(files(), std::vector{path_});
  EXPECT_EQ(content(path_), "older");
}

TEST_F(RawDestinationTest, WhatIsThereStaysWithoutForce) {
  make_file(path_);
  expect_refused(path_, false, ErrorKind::kIo, " exists already: --force replaces");
  EXPECT_EQ(content(path_), "older");
}

TEST_F(RawDestinationTest, WhatComesToBeThereMeanwhileStaysToo) {
  const auto destination = open_raw_destination(path_, false);
  ASSERT_TRUE(destination);
  ASSERT_NO_FATAL_FAILURE(fill(**destination));
  make_file(path_);
  const auto finished = (*destination)->finish();
  ASSERT_FALSE(finished);
  EXPECT_EQ(finished.error().number, EEXIST);
  EXPECT_EQ(finished.error().message().find(path_.string()), 0U) << finished.error().message();
  EXPECT_EQ(content(path_), "older");
  EXPECT_EQ(files(), std::vector{path_});
}

// It is another file in its place: who has the old one open keeps that.
TEST_F(RawDestinationTest, ForceReplacesAFile) {
  make_file(path_);
  fs::create_hard_link(path_, folder_ / "other");
  export_to(path_, true);
  expect_exported(path_);
  EXPECT_EQ(content(folder_ / "other"), "older");
  EXPECT_EQ(files().size(), 2U);
  export_to(folder_ / "new", true);
  expect_exported(folder_ / "new");
}

TEST_F(RawDestinationTest, ALinkToNothingIsReplacedWithForceOnly) {
  fs::create_symlink("nothing", path_);
  expect_refused(path_, false, ErrorKind::kIo, " is a symbolic link to nothing: --force");
  export_to(path_, true);
  EXPECT_FALSE(fs::is_symlink(path_));
  EXPECT_FALSE(fs::exists(folder_ / "nothing"));
  expect_exported(path_);
}

TEST_F(RawDestinationTest, WhatIsNoFileIsRefusedEvenWithForce) {
  const std::string text = " is neither a regular file nor a block device";
  ASSERT_EQ(::mkfifo(path_.c_str(), 0600), 0);
  for (const bool force : {false, true}) {
    expect_refused(path_, force, ErrorKind::kInvalid, text);
    expect_refused(folder_, force, ErrorKind::kInvalid, text);
    expect_refused("/dev/null", force, ErrorKind::kInvalid, text);
  }
}

TEST_F(RawDestinationTest, NeedsAFolderThatIsThere) {
  const auto destination = open_raw_destination(folder_ / "none/disk.raw", false);
  ASSERT_TRUE(destination) << "nothing is changed yet";
  const auto begun = (*destination)->begin({}, kSize);
  ASSERT_FALSE(begun);
  EXPECT_EQ(begun.error().kind, ErrorKind::kNotFound);
  EXPECT_EQ(begun.error().message().find((folder_ / "none").string()), 0U)
      << begun.error().message();
  make_file(path_);
  EXPECT_EQ(open_raw_destination(path_ / "below", false).error().number, ENOTDIR);
}

TEST_F(RawDestinationTest, MayBeNamedWithoutAFolder) {
  const fs::path before = fs::current_path();
  fs::current_path(folder_);
  export_to("disk.raw", false);
  fs::current_path(before);
  expect_exported(path_);
}

TEST_F(RawDestinationTest, AUriIsNoPath) {
  const auto other = open_destination("http://host/disk", true);
  ASSERT_FALSE(other);
  EXPECT_EQ(other.error().kind, ErrorKind::kInvalid);
  EXPECT_EQ(other.error().message(),
            "http://host/disk: give a path, or an NBD URI (nbd://HOST/NAME)");
  const auto unforced = open_destination("nbd://localhost:1/disk", false);
  ASSERT_FALSE(unforced);
  EXPECT_EQ(unforced.error().kind, ErrorKind::kIo);
  EXPECT_EQ(unforced.error().message().find("nbd://localhost:1/disk: "), 0U);
  EXPECT_NE(unforced.error().message().find("--force"), std::string::npos);
  make_file(path_);
  EXPECT_FALSE(open_destination(path_, false));
  EXPECT_TRUE(open_destination(path_, true));
}

}  // namespace
}  // namespace ckpt
