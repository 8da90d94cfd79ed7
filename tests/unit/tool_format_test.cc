// SPDX-License-Identifier: Apache-2.0
// Numbers, times and texts as people read them.
#include <gtest/gtest.h>

#include "tools/format.h"
#include "tools/progress_bar.h"

namespace ckpt {
namespace {

using namespace std::chrono_literals;

TEST(ToolFormat, Bytes) {
  EXPECT_EQ(format_bytes(0), "0 bytes");
  EXPECT_EQ(format_bytes(1), "1 byte");
  EXPECT_EQ(format_bytes(1023), "1023 bytes");
  EXPECT_EQ(format_bytes(1024), "1.0 KiB");
  EXPECT_EQ(format_bytes(1536), "1.5 KiB");
  EXPECT_EQ(format_bytes(100 * 1024), "100 KiB");
  EXPECT_EQ(format_bytes((1U << 20U) - 1), "1.0 MiB");
  EXPECT_EQ(format_bytes(uint64_t{1} << 30U), "1.0 GiB");
  EXPECT_EQ(format_bytes(uint64_t{320} << 30U), "320 GiB");
  EXPECT_EQ(format_bytes(UINT64_MAX), "16.0 EiB");
  EXPECT_EQ(format_bytes_exact(512), "512 bytes");
  EXPECT_EQ(format_bytes_exact(uint64_t{1} << 30U), "1.0 GiB (1073741824 bytes)");
}

TEST(ToolFormat, Durations) {
  EXPECT_EQ(format_duration(0ns), "0 us");
  EXPECT_EQ(format_duration(850us), "850 us");
  EXPECT_EQ(format_duration(1200us), "1.2 ms");
  EXPECT_EQ(format_duration(999ms), "999.0 ms");
  EXPECT_EQ(format_duration(42s), "42.0 s");
  EXPECT_EQ(format_duration(59'990ms), "1 min");
  EXPECT_EQ(format_duration(200s), "3 min 20 s");
  EXPECT_EQ(format_duration(2h + 5min), "2 h 5 min");
  EXPECT_EQ(format_duration(52h), "2 d 4 h");
}

TEST(ToolFormat, Past) {
  EXPECT_NE(format_past(1000s, 1200s).find("(3 min 20 s ago)"), std::string::npos);
  EXPECT_NE(format_past(1000s, 1009s).find("(9 s ago)"), std::string::npos);
  EXPECT_NE(format_past(1000s, 1000s).find("(just now)"), std::string::npos);
  EXPECT_NE(format_past(1000s, 10s).find("(just now)"), std::string::npos);
}

TEST(ToolFormat, PrintableText) {
  EXPECT_EQ(printable("plain"), "plain");
  EXPECT_EQ(printable("Überraschung €"), "Überraschung €");
  EXPECT_EQ(printable("a\x1b[31mred"), "a?[31mred");
  EXPECT_EQ(printable("a\nb\tc"), "a?b?c");
  EXPECT_EQ(printable("\xc2\x9b"
                      "31m"),
            "?31m");  // CSI in one character
  EXPECT_EQ(printable("\xff\xfe"), "??");
  EXPECT_EQ(printable("\xc3"), "?");
  EXPECT_EQ(printable("\x80\x80\x80\x80\x80\x80").find('\x80'), std::string::npos);
  EXPECT_EQ(printable(std::string("a\0b", 3)), "a?b");
}

TEST(ToolFormat, Alignment) {
  EXPECT_EQ(format_rows({{"a", "1"}, {"long", "2"}}), "a     1\nlong  2\n");
  EXPECT_EQ(format_table({{"ID", "NAME"}, {"7", "ü"}, {"123", ""}}, {true, false}),
            " ID  NAME\n  7  ü\n123\n");
}

TEST(ToolFormat, ProgressLine) {
  const ProgressPoint half{"verifying", uint64_t{1} << 30U, uint64_t{2} << 30U, 4s};
  const std::string line = format_progress(half, 120);
  EXPECT_NE(line.find("verifying  50 % [####"), std::string::npos) << line;
  EXPECT_NE(line.find("1.0 GiB of 2.0 GiB  256 MiB/s  4.0 s left"), std::string::npos) << line;
  for (const size_t columns : {0U, 1U, 10U, 40U, 60U, 80U, 200U}) {
    EXPECT_LE(format_progress(half, columns).size(), columns);
  }
}

TEST(ToolFormat, ProgressLineAtTheEdges) {
  EXPECT_NE(format_progress({"x", 0, 0, 0s}, 80).find("100 %"), std::string::npos);
  EXPECT_NE(format_progress({"x", 5, 3, 1s}, 80).find("100 %"), std::string::npos);
  // Too slow for a time left that means anything.
  EXPECT_EQ(format_progress({"x", 1, UINT64_MAX, 1h}, 80).find("left"), std::string::npos);
}

}  // namespace
}  // namespace ckpt
