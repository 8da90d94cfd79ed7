// SPDX-License-Identifier: Apache-2.0
// The plugin's parameters: what they set, and what a bad value is told.
#include <gtest/gtest.h>

#include <filesystem>

#include "plugin/config.h"

namespace ckpt {
namespace {

// The options after one parameter; the test fails if it was refused.
LocalOptions with(const std::string& key, const std::string& value) {
  LocalOptions options;
  const auto set = set_parameter(options, key, value);
  EXPECT_TRUE(set) << set.error().message();
  return options;
}

// What a refused parameter is told.
std::string refusal(const std::string& key, const std::string& value) {
  LocalOptions options;
  const auto set = set_parameter(options, key, value);
  EXPECT_FALSE(set) << key << "=" << value << " was taken";
  EXPECT_TRUE(set || set.error().kind == ErrorKind::kInvalid);
  return set ? "" : set.error().message();
}

void expect_refused(const std::string& key, const std::vector<std::string>& values,
                    const std::string& advice) {
  for (const std::string& value : values) {
    const std::string text = refusal(key, value);
    EXPECT_EQ(text.rfind(key + "=" + value + ": ", 0), 0U) << text;
    EXPECT_NE(text.find(advice), std::string::npos) << text;
  }
}

TEST(Config, SizesAsNbdkitWritesThem) {
  const std::vector<std::pair<std::string, uint64_t>> sizes{{"0", 0},
                                                            {"1", 1},
                                                            {"512b", 512},
                                                            {"3s", 1536},
                                                            {"4k", 4096},
                                                            {"4K", 4096},
                                                            {"5M", 5U << 20U},
                                                            {"2G", uint64_t{2} << 30U},
                                                            {"1T", uint64_t{1} << 40U},
                                                            {"1P", uint64_t{1} << 50U},
                                                            {"1E", uint64_t{1} << 60U},
                                                            {"18446744073709551615", UINT64_MAX}};
  for (const auto& [text, bytes] : sizes) {
    const auto parsed = parse_size(text);
    ASSERT_TRUE(parsed) << text;
    EXPECT_EQ(*parsed, bytes) << text;
  }
}

TEST(Config, EverythingElseIsNoSize) {
  for (const char* text : {"", "k", "-1", "+1", " 1", "1 ", "1.5k", "0x10", "1kk", "1Q", "1kB", "b",
                           "18446744073709551616", "16E", "99999999999999999999999", "1,000"}) {
    const auto parsed = parse_size(text);
    ASSERT_FALSE(parsed) << text;
    EXPECT_EQ(parsed.error().kind, ErrorKind::kInvalid);
    EXPECT_FALSE(parsed.error().message().empty());
  }
}

TEST(Config, GoodValuesAreSet) {
  EXPECT_EQ(with("size", "1G").create_bytes, uint64_t{1} << 30U);
  EXPECT_EQ(with("batch-bytes", "64k").volume.ship.batch_bytes, 65536U);
  EXPECT_EQ(with("batch-bytes", "1G").volume.ship.batch_bytes, 1U << 30U);
  EXPECT_EQ(with("batch-delay", "7").volume.ship.batch_delay, std::chrono::milliseconds(7));
  EXPECT_EQ(with("compress", "none").volume.ship.compression.codec, Codec::kNone);
  EXPECT_EQ(with("compress", "zstd").volume.ship.compression.level, 1);
  EXPECT_EQ(with("compress", "zstd:19").volume.ship.compression.level, 19);
  EXPECT_EQ(with("io", "auto").io, IoMode::kAuto);
  EXPECT_EQ(with("io", "uring").io, IoMode::kUring);
  EXPECT_EQ(with("io", "sync").io, IoMode::kSync);
  EXPECT_TRUE(with("multi-conn", "on").volume.clients.multi_conn);
  EXPECT_FALSE(with("multi-conn", "off").volume.clients.multi_conn);
  EXPECT_EQ(with("takeover", "refuse").volume.clients.takeover, Takeover::kRefuse);
  EXPECT_EQ(with("takeover", "fence").volume.clients.takeover, Takeover::kFence);
  EXPECT_TRUE(with("start", "contact").volume.needs_contact);
  EXPECT_FALSE(with("start", "alone").volume.needs_contact);
  EXPECT_TRUE(with("require-backup", "on").volume.requires_backup);
  EXPECT_TRUE(with("confirm", "relayed").volume.awaits_relay);
  EXPECT_FALSE(with("confirm", "store").volume.awaits_relay);
  EXPECT_EQ(with("checkpoint-interval", "60").checkpoint_interval, std::chrono::seconds(60));
  EXPECT_EQ(with("preserve-limit", "2G").volume.start.preserve.total_bytes, uint64_t{2} << 30U);
  EXPECT_TRUE(with("format", "raw").raw);
  EXPECT_TRUE(with("direct", "on").direct);
  EXPECT_FALSE(with("direct", "off").direct);
  EXPECT_FALSE(with("backup", "none").has_backup);
  EXPECT_TRUE(with("backup", "embedded").has_backup);
  EXPECT_EQ(with("attachments", "/tmp").volume.attachments_path, "/tmp");
  EXPECT_EQ(with("name", "accounts of 2026").volume.name, "accounts of 2026");
  with("tls", "off");
}

TEST(Config, AVolumeIsCalledAsItsImageUnlessThatIsNoName) {
  EXPECT_EQ(default_name("/srv/disk.img"), "disk.img");
  EXPECT_EQ(default_name("/dev/vg/data"), "data");
  for (const std::string path :
       {"/srv/a\nb", "/srv/\xff\xfe", "/srv/018f4d2c-0000-4000-8000-000000000001"}) {
    EXPECT_EQ(default_name(path), "") << path;
  }
  for (const std::string& name : {std::string(), std::string("a/b"), std::string(".."),
                                  std::string("x\ty"), std::string(256, 'x')}) {
    LocalOptions options;
    const auto set = set_parameter(options, "name", name);
    ASSERT_FALSE(set) << name;
    EXPECT_EQ(set.error().kind, ErrorKind::kInvalid);
  }
}

TEST(Config, ThePreserveLimitBoundsMemoryToo) {
  EXPECT_EQ(with("preserve-limit", "1M").volume.start.preserve.memory_bytes, 1U << 20U);
}

TEST(Config, TheDefaultsAreTheDocumentedOnes) {
  const LocalOptions options;
  EXPECT_EQ(options.volume.ship.batch_bytes, 4U << 20U);
  EXPECT_EQ(options.volume.ship.batch_delay, std::chrono::milliseconds(100));
  EXPECT_EQ(options.volume.ship.compression.codec, Codec::kZstd);
  EXPECT_EQ(options.volume.ship.compression.level, 1);
  EXPECT_EQ(options.io, IoMode::kAuto);
  EXPECT_EQ(options.checkpoint_interval, std::chrono::seconds(0));
  EXPECT_FALSE(options.volume.clients.multi_conn);
  EXPECT_EQ(options.volume.clients.takeover, Takeover::kFence);
  EXPECT_FALSE(options.volume.needs_contact);
  EXPECT_FALSE(options.volume.requires_backup);
  EXPECT_FALSE(options.volume.awaits_relay);
  EXPECT_EQ(options.volume.start.preserve.total_bytes, uint64_t{1} << 30U);
  EXPECT_EQ(options.volume.start.preserve.memory_bytes, uint64_t{64} << 20U);
}

TEST(Config, PathsAreMadeAbsolute) {
  const std::string here = std::filesystem::current_path().string();
  EXPECT_EQ(with("file", "disk.img").image_path, here + "/disk.img");
  EXPECT_EQ(with("file", "/x/../y/disk.img").image_path, "/y/disk.img");
  EXPECT_EQ(with("state", "s").state_path, here + "/s");
  EXPECT_EQ(with("backup", "embedded").store_place, "");
  EXPECT_EQ(with("backup", "embedded:b").store_place, here + "/b");
}

TEST(Config, BadValuesAreToldWhatWouldBeRight) {
  expect_refused("size", {"0", "2E"}, "no size of a disk");
  expect_refused("size", {"1Q", ""}, "not a");
  expect_refused("batch-bytes", {"65535", "2E"}, "at least 64k");
  expect_refused("batch-delay", {"0", "3600001"}, "from 1 to 3600000");
  expect_refused("batch-delay", {"", "x", "1s", "-1"}, "not a number");
  expect_refused("compress", {"", "zstd:", "zstd:0", "zstd:20", "zstd:x", "zstdx", "lz4", "zstd3"},
                 "none, zstd or zstd:LEVEL");
  expect_refused("io", {"", "URING", "aio"}, "auto, uring or sync");
  expect_refused("takeover", {"", "yes"}, "fence or refuse");
  expect_refused("start", {"", "yes"}, "alone or contact");
  expect_refused("multi-conn", {"", "true", "1"}, "on or off");
  expect_refused("require-backup", {"", "yes"}, "on or off");
  expect_refused("confirm", {"", "on"}, "store or relayed");
  expect_refused("direct", {"yes"}, "on or off");
  expect_refused("checkpoint-interval", {"31536001"}, "at most a year");
  expect_refused("preserve-limit", {"lots"}, "not a");
  expect_refused("format", {"qcow2"}, "raw");
  expect_refused("backup", {"", "embedded:", "disk"}, "embedded:DIR");
}

TEST(Config, ABackUpElsewhereHasAnAddress) {
  for (const char* address : {"unix:/run/x", "host:7000", "[::1]:7000"}) {
    const LocalOptions options = with("backup", address);
    EXPECT_TRUE(options.has_backup);
    EXPECT_EQ(options.store_place, address);
  }
  EXPECT_EQ(with("backup", "tcp:host:7000").store_place, "host:7000");
  expect_refused("backup", {"unix:", "unix:run/x"}, "absolute path");
  expect_refused("backup", {"host:", "host:0", "host:70000", ":7000", "::1:7000", "[host]:7000"},
                 "not an address");
  EXPECT_EQ(with("tls", "off").tls.use, TlsUse::kOff);
}

TEST(Config, AnUnknownParameterIsNamed) {
  EXPECT_NE(refusal("bacth-bytes", "1M").find("bacth-bytes"), std::string::npos);
}

}  // namespace
}  // namespace ckpt
