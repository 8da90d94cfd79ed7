// SPDX-License-Identifier: Apache-2.0
// The kernel's files, directories and shared memory.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <algorithm>
#include <filesystem>

#include "common/checksum.h"
#include "common/posix_file.h"
#include "common/shared_memory.h"

namespace ckpt {
namespace {

namespace fs = std::filesystem;

std::vector<std::byte> filled(size_t bytes, unsigned value) {
  return std::vector<std::byte>(bytes, static_cast<std::byte>(value));
}

class PosixTest : public testing::Test {
 protected:
  PosixTest() {
    std::string pattern = testing::TempDir() + "posix-XXXXXX";
    path_ = ::mkdtemp(pattern.data());
    directory_ = std::move(*PosixDirectory::open(path_, false, {}));
  }
  ~PosixTest() override { fs::remove_all(path_); }

  std::unique_ptr<File> make(const std::string& name) {
    auto file = directory_->open(name, OpenMode::kCreate);
    EXPECT_TRUE(file) << file.error().message();
    return std::move(*file);
  }
  static std::vector<std::byte> content(File& file) {
    std::vector<std::byte> bytes(*file.size());
    EXPECT_TRUE(file.read(0, bytes));
    return bytes;
  }

  std::string path_;
  std::unique_ptr<PosixDirectory> directory_;
};

TEST_F(PosixTest, WritesAndReads) {
  const auto file = make("a");
  ASSERT_TRUE(file->write(10, filled(5000, 1)));
  EXPECT_EQ(*file->size(), 5010U);
  std::vector<std::byte> bytes(5000);
  ASSERT_TRUE(file->read(10, bytes));
  EXPECT_EQ(bytes, filled(5000, 1));
}

TEST_F(PosixTest, WhatIsLetGoCanStillBeRead) {
  const auto file = make("a");
  ASSERT_TRUE(file->write(0, filled(1 << 20, 1)));
  file->write_out({0, 1 << 20});
  ASSERT_TRUE(file->write(4096, filled(4096, 2)));
  ASSERT_TRUE(file->let_go({0, 1 << 19}));
  ASSERT_TRUE(file->let_go({0, 0}));
  auto expected = filled(1 << 20, 1);
  std::ranges::fill_n(expected.begin() + 4096, 4096, std::byte{2});
  EXPECT_EQ(content(*file), expected);
  EXPECT_TRUE(file->sync());
}

TEST_F(PosixTest, ManyTransfersAtOnce) {
  const auto file = make("a");
  auto one = filled(100, 1);
  auto two = filled(200, 2);
  const std::vector<Transfer> transfers{{0, one}, {100, two}};
  ASSERT_TRUE(file->write_many(transfers));
  std::vector<std::byte> first(100);
  std::vector<std::byte> second(200);
  const std::vector<Transfer> reads{{100, second}, {0, first}};
  ASSERT_TRUE(file->read_many(reads));
  EXPECT_EQ(first, one);
  EXPECT_EQ(second, two);
}

TEST_F(PosixTest, AReadPastTheEndIsAnErrorThatNamesTheFile) {
  const auto file = make("short");
  ASSERT_TRUE(file->write(0, filled(100, 1)));
  std::vector<std::byte> bytes(101);
  const auto read = file->read(0, bytes);
  ASSERT_FALSE(read);
  EXPECT_EQ(read.error().kind, ErrorKind::kIo);
  EXPECT_NE(read.error().message().find(path_ + "/short"), std::string::npos);
}

TEST_F(PosixTest, NextDataGoesFromExtentToExtent) {
  const auto file = make("sparse");
  constexpr uint64_t kUnit = 1U << 20U;
  ASSERT_TRUE(file->resize(8 * kUnit));
  ASSERT_TRUE(file->write(2 * kUnit, filled(kUnit, 1)));
  ASSERT_TRUE(file->write(6 * kUnit, filled(kUnit, 1)));
  EXPECT_EQ(**file->next_data(0), (ByteRange{2 * kUnit, kUnit}));
  EXPECT_EQ(**file->next_data(2 * kUnit + 4096), (ByteRange{2 * kUnit + 4096, kUnit - 4096}));
  EXPECT_EQ(**file->next_data(3 * kUnit), (ByteRange{6 * kUnit, kUnit}));
  EXPECT_EQ(*file->next_data(7 * kUnit), std::nullopt);
  EXPECT_EQ(*file->next_data(8 * kUnit), std::nullopt);
  EXPECT_EQ(*file->next_data(9 * kUnit), std::nullopt);
}

TEST_F(PosixTest, PunchingGivesTheSpaceBackAndReadsAsZeroes) {
  const auto file = make("punched");
  constexpr uint64_t kUnit = 1U << 20U;
  ASSERT_TRUE(file->write(0, filled(3 * kUnit, 1)));
  ASSERT_TRUE(file->zero({kUnit, kUnit}, true));
  EXPECT_EQ(*file->size(), 3 * kUnit);
  EXPECT_EQ(**file->next_data(kUnit), (ByteRange{2 * kUnit, kUnit}));
  std::vector<std::byte> bytes(kUnit);
  ASSERT_TRUE(file->read(kUnit, bytes));
  EXPECT_TRUE(is_zero(bytes));
}

TEST_F(PosixTest, ZeroingWithoutPunchingReadsAsZeroesInJustThatRange) {
  const auto file = make("zeroed");
  ASSERT_TRUE(file->write(0, filled(300000, 1)));
  ASSERT_TRUE(file->zero({1000, 200000}, false));
  ASSERT_TRUE(file->zero({5, 0}, false));
  auto expected = filled(300000, 1);
  std::fill_n(expected.begin() + 1000, 200000, std::byte{0});
  EXPECT_TRUE(content(*file) == expected);
}

TEST_F(PosixTest, AllocatingKeepsSizeAndContent) {
  const auto file = make("allocated");
  ASSERT_TRUE(file->write(0, filled(100, 7)));
  ASSERT_TRUE(file->allocate({0, 1U << 20U}));
  EXPECT_EQ(*file->size(), 100U);
  EXPECT_EQ(content(*file), filled(100, 7));
  struct stat status {};
  ASSERT_EQ(::stat((path_ + "/allocated").c_str(), &status), 0);
  EXPECT_GE(status.st_blocks * 512, 1 << 20);
}

TEST_F(PosixTest, StampsTellFilesAndStatesApart) {
  const auto a = make("a");
  const auto b = make("b");
  const auto before = *a->stamp();
  EXPECT_EQ(*a->stamp(), before);
  EXPECT_FALSE(before.same_file(*b->stamp()));
  ASSERT_TRUE(a->write(0, filled(1, 1)));
  EXPECT_TRUE(before.same_file(*a->stamp()));
  EXPECT_NE(*a->stamp(), before);
}

TEST_F(PosixTest, SyncsFilesAndDirectories) {
  const auto file = make("a");
  ASSERT_TRUE(file->write(0, filled(1, 1)));
  EXPECT_TRUE(file->sync());
  EXPECT_TRUE(file->sync());
  EXPECT_TRUE(directory_->sync());
}

// Files may be made there, and not be listed.
TEST_F(PosixTest, WhatIsMadeInADirectoryThatMayNotBeReadIsSyncedToo) {
  constexpr uid_t kNobody = 65534;
  const bool root = ::geteuid() == 0;
  const std::string blind = path_ + "/blind";
  ASSERT_EQ(::mkdir(blind.c_str(), 0700), 0);
  ASSERT_EQ(::chmod(path_.c_str(), 0711), 0);
  ASSERT_EQ(root ? ::chown(blind.c_str(), kNobody, kNobody) : 0, 0);
  ASSERT_EQ(::chmod(blind.c_str(), 0300), 0);
  ASSERT_EQ(root ? ::seteuid(kNobody) : 0, 0);
  EXPECT_FALSE(PosixDirectory::open(blind, false, RingUse{}));
  EXPECT_TRUE(PosixDirectory::open(blind + "/made", true, RingUse{}));
  EXPECT_TRUE(PosixDirectory::open(blind + "/made", true, RingUse{}));
  EXPECT_TRUE(create_whole(blind + "/image", 8192));
  EXPECT_FALSE(create_whole(blind + "/nowhere/image", 8192));
  ASSERT_EQ(root ? ::seteuid(0) : 0, 0);
  ASSERT_EQ(::chmod(blind.c_str(), 0700), 0);
}

TEST_F(PosixTest, AFileIsMadeWholeAndNotOverAnother) {
  ASSERT_TRUE(create_whole(path_ + "/whole", 12345));
  EXPECT_EQ(*directory_->open("whole", OpenMode::kRead).value()->size(), 12345U);
  ASSERT_TRUE(directory_->open("whole", OpenMode::kReadWrite).value()->write(0, filled(1, 7)));
  const auto again = create_whole(path_ + "/whole", 1);
  ASSERT_FALSE(again);
  EXPECT_EQ(again.error().number, EEXIST);
  EXPECT_EQ(*directory_->open("whole", OpenMode::kRead).value()->size(), 12345U);
}

TEST_F(PosixTest, AFailedSyncIsFinal) {
  // A pipe cannot be synced; nor can it the second time.
  std::array<int, 2> ends{};
  ASSERT_EQ(::pipe2(ends.data(), O_CLOEXEC), 0);
  const UniqueFd reader(ends[0]);
  PosixFile file(UniqueFd(ends[1]), "pipe", {});
  const auto first = file.sync();
  ASSERT_FALSE(first);
  const auto second = file.sync();
  ASSERT_FALSE(second);
  EXPECT_EQ(second.error().message(), first.error().message());
}

TEST_F(PosixTest, OpenModes) {
  EXPECT_EQ(directory_->open("a", OpenMode::kRead).error().kind, ErrorKind::kNotFound);
  EXPECT_EQ(directory_->open("a", OpenMode::kReadWrite).error().kind, ErrorKind::kNotFound);
  ASSERT_TRUE(directory_->open("a", OpenMode::kCreate));
  EXPECT_FALSE(directory_->open("a", OpenMode::kCreate));
  struct stat status {};
  ASSERT_EQ(::stat((path_ + "/a").c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 0777U, 0600U);
  auto read_only = directory_->open("a", OpenMode::kRead);
  ASSERT_TRUE(read_only);
  EXPECT_FALSE((*read_only)->write(0, filled(1, 1)));
}

TEST_F(PosixTest, ALinkIsNotFollowed) {
  make("target");
  ASSERT_EQ(::symlink("target", (path_ + "/link").c_str()), 0);
  EXPECT_FALSE(directory_->open("link", OpenMode::kReadWrite));
}

TEST_F(PosixTest, EntriesAreListedRenamedAndRemoved) {
  make("b");
  make("a");
  ASSERT_TRUE(directory_->subdirectory("c", true));
  EXPECT_EQ(*directory_->list(), (std::vector<std::string>{"a", "b", "c"}));
  ASSERT_TRUE(directory_->rename("a", "d"));
  ASSERT_TRUE(directory_->remove("b"));
  EXPECT_EQ(directory_->remove("b").error().kind, ErrorKind::kNotFound);
  EXPECT_EQ(*directory_->list(), (std::vector<std::string>{"c", "d"}));
}

TEST_F(PosixTest, Subdirectories) {
  EXPECT_EQ(directory_->subdirectory("x", false).error().kind, ErrorKind::kNotFound);
  auto made = directory_->subdirectory("x", true);
  ASSERT_TRUE(made);
  EXPECT_EQ((*made)->path(), path_ + "/x");
  ASSERT_TRUE((*made)->open("a", OpenMode::kCreate));
  auto again = directory_->subdirectory("x", true);
  ASSERT_TRUE(again);
  EXPECT_EQ((*again)->list()->size(), 1U);
  struct stat status {};
  ASSERT_EQ(::stat((path_ + "/x").c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 0777U, 0700U);
  EXPECT_GT(*directory_->free_bytes(), 0U);
}

class TmpfsTest : public testing::Test {
 protected:
  TmpfsTest() {
    char pattern[] = "/dev/shm/ckpt-unit-XXXXXX";
    path_ = ::mkdtemp(pattern);
    ::setenv("XDG_RUNTIME_DIR", path_.c_str(), 1);
    store_ = std::move(*TmpfsMemoryStore::open());
  }
  ~TmpfsTest() override {
    ::unsetenv("XDG_RUNTIME_DIR");
    fs::remove_all(path_);
  }

  std::string path_;
  std::unique_ptr<TmpfsMemoryStore> store_;
};

TEST_F(TmpfsTest, TheRuntimeDirectoryComesFirstAndIsPrivate) {
  EXPECT_EQ(store_->path(), path_ + "/ckpt");
  struct stat status {};
  ASSERT_EQ(::stat(store_->path().c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 0777U, 0700U);
}

// As a server that systemd started, and whoever looks after it from a login.
TEST_F(TmpfsTest, WhatWasMadeWithoutARuntimeDirectoryIsFoundWithOne) {
  const std::string runtime = getenv("XDG_RUNTIME_DIR");
  unsetenv("XDG_RUNTIME_DIR");
  const std::string name = "test-" + std::to_string(getpid());
  const auto other = TmpfsMemoryStore::open();
  ASSERT_TRUE(other);
  ASSERT_NE((*other)->path(), store_->path());
  ASSERT_TRUE((*other)->create(name, 8192));
  setenv("XDG_RUNTIME_DIR", runtime.c_str(), 1);
  const auto both = TmpfsMemoryStore::open();
  ASSERT_TRUE(both);
  EXPECT_EQ((*both)->path(), store_->path());
  EXPECT_TRUE((*both)->open(name, 8192));
  EXPECT_TRUE((*both)->remove(name));
  EXPECT_FALSE((*other)->open(name, 8192));
  EXPECT_FALSE((*both)->remove(name));
}

TEST_F(TmpfsTest, WhatIsWrittenOutlivesTheMapping) {
  {
    auto memory = store_->create("m", 16 * 4096);
    ASSERT_TRUE(memory);
    ASSERT_TRUE((*memory)->allocate({5000, 10}));
    (*memory)->bytes()[5000] = std::byte{9};
  }
  auto memory = store_->open("m", 16 * 4096);
  ASSERT_TRUE(memory);
  EXPECT_EQ((*memory)->bytes()[5000], std::byte{9});
  EXPECT_EQ((*memory)->bytes().size(), 16U * 4096);
  struct stat status {};
  ASSERT_EQ(::stat((path_ + "/ckpt/m").c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 0777U, 0600U);
}

TEST_F(TmpfsTest, PagesThatHoldSomethingAreFound) {
  auto memory = store_->create("m", 16 * 4096);
  ASSERT_TRUE(memory);
  EXPECT_EQ(*(*memory)->next_allocated(0), std::nullopt);
  ASSERT_TRUE((*memory)->allocate({2 * 4096 + 7, 1}));
  ASSERT_TRUE((*memory)->allocate({5 * 4096 - 1, 2}));
  for (const size_t at : std::initializer_list<size_t>{2 * 4096 + 7, 5 * 4096 - 1, 5 * 4096}) {
    (*memory)->bytes()[at] = std::byte{1};
  }
  EXPECT_EQ(**(*memory)->next_allocated(0), (ByteRange{2 * 4096, 4096}));
  EXPECT_EQ(**(*memory)->next_allocated(3 * 4096), (ByteRange{4 * 4096, 2 * 4096}));
  EXPECT_EQ(*(*memory)->next_allocated(6 * 4096), std::nullopt);
}

TEST_F(TmpfsTest, PrivatePagesDoNotOutliveTheMapping) {
  {
    auto memory = store_->create("m", 4 * 4096);
    ASSERT_TRUE(memory);
    ASSERT_TRUE((*memory)->allocate_private({4096, 4096}));
    (*memory)->bytes()[4096] = std::byte{9};
    EXPECT_EQ(*(*memory)->next_allocated(0), std::nullopt);
  }
  auto memory = store_->open("m", 4 * 4096);
  ASSERT_TRUE(memory);
  ASSERT_TRUE((*memory)->allocate({4096, 4096}));
  EXPECT_EQ((*memory)->bytes()[4096], std::byte{0});
}

TEST_F(TmpfsTest, NamesAreTakenOnceAndSizesMustFit) {
  ASSERT_TRUE(store_->create("m", 4096));
  EXPECT_FALSE(store_->create("m", 4096));
  EXPECT_EQ(store_->open("m", 8192).error().kind, ErrorKind::kCorrupt);
  EXPECT_EQ(store_->open("other", 4096).error().kind, ErrorKind::kNotFound);
  ASSERT_TRUE(store_->remove("m"));
  EXPECT_EQ(store_->remove("m").error().kind, ErrorKind::kNotFound);
}

}  // namespace
}  // namespace ckpt
