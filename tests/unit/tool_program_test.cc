// SPDX-License-Identifier: Apache-2.0
// Other programs, run for what they say: whatever they do, it ends.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <filesystem>
#include <fstream>
#include <thread>

#include "common/clock.h"
#include "tools/program.h"
#include "tools/text_file.h"

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

class DetachedProgram : public testing::Test {
 protected:
  DetachedProgram() {
    std::string pattern = testing::TempDir() + "detached-XXXXXX";
    folder_ = ::mkdtemp(pattern.data());
  }
  ~DetachedProgram() override { fs::remove_all(folder_); }
  Result<pid_t> start(const std::string& script, milliseconds timeout = kAmple) const {
    return start_detached(
        {"/bin/sh", "-c", script, "sh", folder_.string()},
        [this] { return fs::exists(folder_ / "ready"); }, timeout);
  }
  static void end(pid_t pid) {
    ::kill(pid, SIGKILL);
    ::waitpid(pid, nullptr, 0);
  }
  fs::path folder_;
};

TEST_F(DetachedProgram, IsInASessionOfItsOwnAndStays) {
  const int open = ::open("/dev/null", O_RDONLY);  // it must not have this one
  ASSERT_GE(open, 0);
  const auto pid = start("ls -l /proc/$$/fd >$1/open; touch $1/ready; exec sleep 1000");
  ::close(open);
  ASSERT_TRUE(pid) << pid.error().message();
  EXPECT_EQ(::getsid(*pid), *pid);
  ::kill(*pid, SIGTERM);
  ::kill(*pid, SIGHUP);
  std::this_thread::sleep_for(milliseconds(50));
  EXPECT_EQ(::waitpid(*pid, nullptr, WNOHANG), 0) << "what ends a whole service does not end it";
  end(*pid);
  std::ifstream listing(folder_ / "open");
  const std::string text{std::istreambuf_iterator<char>(listing), {}};
  EXPECT_EQ(text.find(" " + std::to_string(open) + " -> "), std::string::npos) << text;
}

TEST_F(DetachedProgram, GoesOnWhenNobodyReadsWhatItSays) {
  const auto pid = start("touch $1/ready; sleep 0.3; echo more; touch $1/said; exec sleep 1000");
  ASSERT_TRUE(pid) << pid.error().message();
  const SteadyTime deadline = system_clock().steady() + kAmple;
  while (!fs::exists(folder_ / "said") && system_clock().steady() < deadline) {
    std::this_thread::sleep_for(milliseconds(5));
  }
  EXPECT_TRUE(fs::exists(folder_ / "said"));
  end(*pid);
}

TEST_F(DetachedProgram, WhyItDoesNotComeUpIsSaid) {
  const auto failed = start("echo 'no server' >&2; exit 1");
  ASSERT_FALSE(failed);
  EXPECT_EQ(failed.error().message(), "no server (exit status 1)");
  EXPECT_EQ(start("exit 0").error().message(), "it has ended at once");
  const auto missing = start_detached(
      {"/nonexistent/program"}, [] { return false; }, kAmple);
  ASSERT_FALSE(missing);
  EXPECT_NE(missing.error().message().find("/nonexistent/program: No such file"),
            std::string::npos);
}

TEST_F(DetachedProgram, OneThatDoesNotComeUpIsKilled) {
  const auto late = start("echo $$ >$1/pid; exec sleep 1000", milliseconds(300));
  ASSERT_FALSE(late);
  EXPECT_EQ(late.error().kind, ErrorKind::kTimeout);
  pid_t pid = 0;
  std::ifstream(folder_ / "pid") >> pid;
  ASSERT_GT(pid, 0);
  EXPECT_NE(::kill(pid, 0), 0);
}

// As of a process that ends meanwhile: there is a file, and reading it fails.
TEST(TextFileTest, WhatCannotBeReadIsEmpty) {
  EXPECT_EQ(content_of("/proc/self/mem", 10), "");
  EXPECT_EQ(content_of("/"), "");
  EXPECT_EQ(content_of("/nowhere"), "");
  EXPECT_EQ(first_line_of("/proc/self/mem"), "");
  EXPECT_EQ(first_line_of("/"), "");
}

TEST(TextFileTest, NoMoreThanIsAskedFor) {
  EXPECT_EQ(content_of("/proc/self/status", 5), "Name:");
  EXPECT_EQ(content_of("/proc/self/status").substr(0, 5), "Name:");
  EXPECT_EQ(content_of("/dev/zero", 5000), std::string(5000, '\0'));
}

}  // namespace
}  // namespace ckpt
