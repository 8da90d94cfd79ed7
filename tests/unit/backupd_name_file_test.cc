// SPDX-License-Identifier: Apache-2.0
// What a volume is called, in its file: docs/store-format.md, "Layout".
#include <gtest/gtest.h>

#include "backupd/store/name_file.h"
#include "common/volume_name.h"
#include "tests/unit/memory_directory.h"

namespace ckpt::test {
namespace {

class NameFileTest : public testing::Test {
 protected:
  void put(const std::string& name, const std::string& text) {
    (void)folder_->remove(name);
    const auto file = folder_->open(name, OpenMode::kCreate);
    ASSERT_TRUE(file);
    ASSERT_TRUE((*file)->write(0, std::as_bytes(std::span(text))));
  }

  MemoryDisk disk_;
  std::unique_ptr<Directory> folder_ = disk_.root();
};

TEST_F(NameFileTest, IsReadAsItWasWritten) {
  EXPECT_EQ(read_name(*folder_), "");
  for (const std::string& name :
       {std::string("accounts"), std::string("a b"), std::string(kVolumeNameBytesMax, 'x')}) {
    ASSERT_TRUE(write_name(*folder_, name));
    EXPECT_EQ(read_name(*folder_), name);
  }
}

TEST_F(NameFileTest, WhatAnInterruptedWriteLeftIsReplaced) {
  ASSERT_TRUE(write_name(*folder_, "before"));
  put("name.new", "ha");
  EXPECT_EQ(read_name(*folder_), "before");
  ASSERT_TRUE(write_name(*folder_, "after"));
  EXPECT_EQ(read_name(*folder_), "after");
}

TEST_F(NameFileTest, WhatIsNoNameCountsAsMissing) {
  for (const std::string& text :
       {std::string(), std::string("\n"), std::string("torn"), std::string("a/b\n"),
        std::string("a\nb\n"), std::string("\xff\n"), std::string("\xc2\x9b\n"),
        std::string(kVolumeNameBytesMax + 1, 'x') + "\n", std::string(1 << 20, 'x')}) {
    put("name", text);
    EXPECT_EQ(read_name(*folder_), "") << text.substr(0, 20);
  }
}

}  // namespace
}  // namespace ckpt::test
