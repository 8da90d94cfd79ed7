// SPDX-License-Identifier: Apache-2.0
// What the tool knows of disks that nbdfuse serves, out of what processes and the kernel say of
// themselves. tests/integration/test_fuse_disk.py has real ones.
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>

#include "tools/attached_disk.h"
#include "tools/fuse_disk.h"
#include "tools/work_folder.h"

namespace ckpt {
namespace {

namespace fs = std::filesystem;

using FuseWords = std::vector<std::string>;

// The server that these words, given in /srv, start for /srv/disk; "none": they do not.
std::string uri_of(const FuseWords& words, const std::string& file = "/srv/disk") {
  const auto server = parse_fuse_server(words, "/srv", file);
  return server ? server->uri : "none";
}

TEST(FuseServerWords, SayWhatItIsAClientOf) {
  EXPECT_EQ(uri_of({"nbdfuse", "/srv/disk", "nbds://host/x"}), "nbds://host/x");
  EXPECT_EQ(uri_of({"/usr/bin/nbdfuse", "-P", "pid", "disk", "--unix", "/run/a b.sock"}),
            "nbd+unix:///?socket=/run/a%20b.sock");
  EXPECT_EQ(uri_of({"nbdfuse", "./disk", "--unix", "../s.sock"}), "nbd+unix:///?socket=/s.sock");
  EXPECT_EQ(uri_of({"nbdfuse", "disk", "--tcp", "localhost", "10809"}), "nbd://localhost:10809");
  EXPECT_EQ(uri_of({"nbdfuse", "disk", "--tcp", "::1", "7000"}), "nbd://[::1]:7000");
}

TEST(FuseServerWords, MayNotSay) {
  EXPECT_EQ(uri_of({"nbdfuse", "disk", "[", "nbdkit", "null", "]"}), "");
  EXPECT_EQ(uri_of({"nbdfuse", "disk", "--command", "nbdkit", "-s", "nbd://"}), "");
  EXPECT_EQ(uri_of({"nbdfuse", "disk", "--fd", "3"}), "");
  EXPECT_EQ(uri_of({"nbdfuse", "disk"}), "");
}

TEST(FuseServerWords, OfOthersAreNone) {
  EXPECT_EQ(uri_of({}), "none");
  EXPECT_EQ(uri_of({"nbdfuse"}), "none");
  EXPECT_EQ(uri_of({"nbdfuse", "/srv/disk2", "nbd://host"}), "none");
  EXPECT_EQ(uri_of({"nbdfuse", "/other/disk", "nbd://host"}), "none");
  EXPECT_EQ(uri_of({"vi", "/srv/disk", "nbd://host"}), "none");
  EXPECT_EQ(uri_of({"nbdfuse", "/srv", "nbd://host"}, "/srv/nbd"), "none");
}

// The file itself may not answer: only where it is is looked up.
TEST(FuseServerWords, MayNameTheFileByALink) {
  const auto folder = WorkFolder::make(testing::TempDir(), "fuse-disk");
  ASSERT_TRUE(folder);
  fs::create_directory(folder->path() + "/real");
  fs::create_directory_symlink("real", folder->path() + "/link");
  EXPECT_EQ(uri_of({"nbdfuse", folder->path() + "/link/disk", "nbd://host"},
                   fs::canonical(folder->path()) / "real/disk"),
            "nbd://host");
}

TEST(FuseDisk, NeedsItsPrograms) {
  const auto found = find_fuse_programs("/nonexistent");
  ASSERT_FALSE(found);
  EXPECT_EQ(found.error().kind, ErrorKind::kNotFound);
  for (const char* package : {"libnbd-bin", "fuse3", "package mount"}) {
    EXPECT_NE(found.error().message().find(package), std::string::npos) << found.error().message();
  }
}

TEST(FuseDisk, WhatIsNotServedIsNone) {
  EXPECT_FALSE(find_fuse_mount("/proc")) << "it is a mount, but not FUSE's";
  EXPECT_FALSE(find_fuse_mount("/etc/passwd"));
  EXPECT_FALSE(find_fuse_server("/etc/passwd"));
  EXPECT_EQ(file_below("/dev/null"), "");
  EXPECT_EQ(file_below(""), "");
  EXPECT_TRUE(loops_upon("/etc/passwd").empty());
  EXPECT_TRUE(check_fuse_answers("/dev/null"));
  const AttachedDisk disk{"", 512, "nbd://host", "/nonexistent/disk"};
  const auto is_attached = has_size(disk);
  ASSERT_TRUE(is_attached);
  EXPECT_FALSE(*is_attached);
  EXPECT_TRUE(detach(disk)) << "there is nothing to do";
}

TEST(FuseDisk, AMountOfAnythingElseIsRefused) {
  const auto proc = find_mount("/proc");
  ASSERT_TRUE(proc);
  const auto disk = find_disk(*proc, {});
  ASSERT_FALSE(disk);
  EXPECT_EQ(disk.error().kind, ErrorKind::kInvalid);
  EXPECT_NE(disk.error().message().find("no loop device of what nbdfuse serves"),
            std::string::npos);
}

}  // namespace
}  // namespace ckpt
