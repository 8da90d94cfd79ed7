// SPDX-License-Identifier: Apache-2.0
// Other programs, run for what they say: whatever they do, it ends.
#include <gtest/gtest.h>

#include <csignal>
#include <filesystem>
#include <fstream>
#include <thread>

#include "common/clock.h"
#include "tools/program.h"

namespace ckpt {
namespace {

namespace fs = std::filesystem;
using std::chrono::milliseconds;

constexpr std::chrono::seconds kAmple{30};

Result<std::string> shell(const std::string& script, milliseconds timeout = kAmple) {
  return output_of({"/bin/sh", "-c", script}, timeout);
}

TEST(ToolProgram, SaysWhatItSays) {
  const auto said = output_of({"/bin/echo", "a b", "$HOME;*"}, kAmple);
  ASSERT_TRUE(said) << said.error().message();
  EXPECT_EQ(*said, "a b $HOME;*\n");
  EXPECT_EQ(*shell("echo out; echo err >&2"), "out\nerr\n");
  EXPECT_EQ(*shell("read line; echo \"<$line>\""), "<>\n");
}

TEST(ToolProgram, FailureNamesTheFirstWords) {
  const auto failed = shell("echo 'no such plugin' >&2; echo 'try --help'; exit 3");
  ASSERT_FALSE(failed);
  EXPECT_EQ(failed.error().message(), "no such plugin (exit status 3)");
  EXPECT_EQ(shell("exit 1").error().message(), "it says nothing (exit status 1)");
  EXPECT_EQ(shell("kill -9 $$").error().message(), "it says nothing (signal 9)");
  EXPECT_EQ(output_of({"/nonexistent/program"}, kAmple).error().kind, ErrorKind::kNotFound);
}

void expect_timeout(const std::string& script) {
  const SteadyTime begin = system_clock().steady();
  const auto outcome = shell(script, milliseconds(200));
  ASSERT_FALSE(outcome) << script;
  EXPECT_EQ(outcome.error().kind, ErrorKind::kTimeout) << script;
  EXPECT_LT(system_clock().steady() - begin, std::chrono::seconds(20)) << script;
}

TEST(ToolProgram, OneThatDoesNotEndIsKilled) {
  expect_timeout("sleep 600");
  expect_timeout("exec >&- 2>&-; sleep 600");
  expect_timeout("sleep 600 & exit 0");
  expect_timeout("trap '' TERM INT HUP; while :; do sleep 1; done");
}

TEST(ToolProgram, WhatItStartedIsKilledToo) {
  std::string pattern = testing::TempDir() + "program-XXXXXX";
  const fs::path folder = ::mkdtemp(pattern.data());
  expect_timeout("sleep 600 & echo $! > " + (folder / "pid").string() + "; wait");
  pid_t pid = 0;
  std::ifstream(folder / "pid") >> pid;
  ASSERT_GT(pid, 0);
  // Gone, or dead and not yet reaped by whoever inherited it.
  const auto is_alive = [&] {
    std::string text;
    std::getline(std::ifstream("/proc/" + std::to_string(pid) + "/stat"), text);
    return !text.empty() && text.find(") Z ") == std::string::npos;
  };
  for (int i = 0; i < 1000 && is_alive(); ++i) {
    std::this_thread::sleep_for(milliseconds(10));
  }
  EXPECT_FALSE(is_alive());
  fs::remove_all(folder);
}

TEST(ToolProgram, EndlessOutputIsNotKept) {
  const auto outcome = shell("while :; do echo yes; done");
  ASSERT_FALSE(outcome);
  EXPECT_NE(outcome.error().message().find("more than 65536 bytes"), std::string::npos);
}

TEST(ToolProgram, IsFoundInTheFirstFolderThatHasIt) {
  std::string pattern = testing::TempDir() + "path-XXXXXX";
  const fs::path folder = ::mkdtemp(pattern.data());
  const auto add = [&](const std::string& path, fs::perms mode) {
    fs::create_directories((folder / path).parent_path());
    std::ofstream(folder / path) << "#!/bin/sh\n";
    fs::permissions(folder / path, mode);
  };
  add("a/tool", fs::perms::owner_read);  // no program
  add("b/tool", fs::perms::owner_all);
  add("c/tool", fs::perms::owner_all);
  fs::create_directories(folder / "a/folder");
  const std::string path = "/nonexistent:" + (folder / "a").string() + ":" +
                           (folder / "b").string() + ":" + (folder / "c").string();
  EXPECT_EQ(find_program("tool", path), folder / "b/tool");
  EXPECT_EQ(find_program("folder", path), "");
  EXPECT_EQ(find_program("other", path), "");
  EXPECT_EQ(find_program("tool", ""), "");
  fs::remove_all(folder);
}

}  // namespace
}  // namespace ckpt
