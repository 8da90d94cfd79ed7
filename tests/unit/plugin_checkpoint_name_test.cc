// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include "plugin/checkpoint_name.h"

namespace ckpt {
namespace {

TEST(CheckpointName, WhatItMayBe) {
  for (const char* good : {"", "before-upgrade", "v1.2", "1a", "Überraschung", "-7", "last2"}) {
    EXPECT_TRUE(check_name(good)) << good;
  }
  for (const char* bad :
       {"12", "0", "last", "a\nb", "tab\t", "\x1b[31m", "\xff", "\xc0\xaf", "\xed\xa0\x80"}) {
    EXPECT_FALSE(check_name(bad)) << bad;
  }
  EXPECT_TRUE(check_name(std::string(kNameBytesMax, 'x')));
  EXPECT_FALSE(check_name(std::string(kNameBytesMax + 1, 'x')));
  EXPECT_FALSE(check_message(std::string(kMessageBytesMax + 1, 'x')));
}

CheckpointInfo called(const std::string& name, uint64_t number) {
  CheckpointInfo checkpoint;
  checkpoint.name = name;
  checkpoint.id.number = Epoch{number};
  return checkpoint;
}

TEST(CheckpointName, FindsByNumberNameOrLast) {
  const std::vector<CheckpointInfo> kept{called("", 3), called("a b", 7), called("c", 12)};
  EXPECT_EQ(find_checkpoint(kept, "3")->id.number, Epoch{3});
  EXPECT_EQ(find_checkpoint(kept, "a b")->id.number, Epoch{7});
  EXPECT_EQ(find_checkpoint(kept, "last")->id.number, Epoch{12});
}

TEST(CheckpointName, SaysWhatIsNotKept) {
  const auto none = find_checkpoint({}, "last");
  ASSERT_FALSE(none);
  EXPECT_EQ(none.error().kind, ErrorKind::kNotFound);
  EXPECT_NE(none.error().message().find("make one"), std::string::npos);
  const std::vector<CheckpointInfo> kept{called("", 3), called("c", 12)};
  for (const char* id : {"", "1", "03", "Last", "99999999999999999999"}) {
    const auto missing = find_checkpoint(kept, id);
    ASSERT_FALSE(missing) << id;
    EXPECT_EQ(missing.error().kind, ErrorKind::kNotFound);
    EXPECT_NE(missing.error().message().find("\"" + std::string(id) + "\""), std::string::npos);
  }
}

}  // namespace
}  // namespace ckpt
