// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include "tools/screen.h"

namespace ckpt::test {
namespace {

using Rows = std::vector<std::string>;

TEST(FoldLine, FoldsWhatDoesNotFit) {
  EXPECT_EQ(fold_line("", 3), Rows{""});
  EXPECT_EQ(fold_line("abc", 3), Rows{"abc"});
  EXPECT_EQ(fold_line("abcd", 3), (Rows{"abc", "d"}));
  EXPECT_EQ(fold_line("abcdefg", 3), (Rows{"abc", "def", "g"}));
  EXPECT_EQ(fold_line("ab", 0), (Rows{"a", "b"}));
}

TEST(FoldLine, CountsCharactersNotBytes) {
  EXPECT_EQ(fold_line("µµµ", 2), (Rows{"µµ", "µ"}));
  EXPECT_EQ(fold_line("a\xc2", 2), Rows{"a\xc2"});
}

TEST(FoldLine, ControlSequencesHaveNoWidth) {
  EXPECT_EQ(fold_line("\x1b[32mrunning\x1b[0m!", 7), (Rows{"\x1b[32mrunning\x1b[0m", "!"}));
  EXPECT_EQ(fold_line("a\x1b[1;31mbc\x1b[0m", 2), (Rows{"a\x1b[1;31mb", "c\x1b[0m"}));
  EXPECT_EQ(fold_line("ab\x1b[", 2), Rows{"ab\x1b["});
  EXPECT_EQ(fold_line("ab\x1b", 2), Rows{"ab\x1b"});
}

}  // namespace
}  // namespace ckpt::test
