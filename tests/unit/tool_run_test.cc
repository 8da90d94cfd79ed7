// SPDX-License-Identifier: Apache-2.0
// What `run` and its command tell each other.
#include <gtest/gtest.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <csignal>
#include <filesystem>
#include <fstream>
#include <future>
#include <thread>

#include "tools/contained_command.h"
#include "tools/program.h"
#include "tools/run_folder.h"
#include "tools/saved_processes.h"
#include "tools/work_folder.h"

namespace ckpt {
namespace {

namespace fs = std::filesystem;
using std::chrono::milliseconds;
using std::chrono::seconds;

class RunFolderTest : public testing::Test {
 protected:
  std::future<Result<RunAnswer>> ask(milliseconds timeout = seconds(30)) {
    return std::async(std::launch::async,
                      [this, timeout] { return ask_for_checkpoint(folder_.path(), timeout); });
  }
  std::vector<std::string> wait_for_asks(size_t count) {
    const auto deadline = std::chrono::steady_clock::now() + seconds(30);
    while (folder_.asks().size() != count && std::chrono::steady_clock::now() < deadline) {
      std::this_thread::sleep_for(milliseconds(1));
    }
    return folder_.asks();
  }
  size_t count_of(const std::string& suffix) const {
    const auto files = fs::directory_iterator(folder_.path());
    return static_cast<size_t>(std::count_if(begin(files), end(files), [&](const auto& entry) {
      return entry.path().extension() == suffix;
    }));
  }

  WorkFolder state_ = *WorkFolder::make(fs::temp_directory_path().string(), "ckpt-run-test");
  RunFolder folder_ = *RunFolder::open(state_.path());
};

TEST_F(RunFolderTest, HasOneOwner) {
  const auto second = RunFolder::open(state_.path());
  ASSERT_FALSE(second);
  EXPECT_EQ(second.error().kind, ErrorKind::kBusy);
}

TEST_F(RunFolderTest, WhoAsksIsTold) {
  auto first = ask();
  auto second = ask();
  const auto asks = wait_for_asks(2);
  ASSERT_EQ(asks.size(), 2U);
  folder_.answer(asks, RunAnswer{Epoch{7}});
  for (auto* asked : {&first, &second}) {
    const auto answer = asked->get();
    ASSERT_TRUE(answer) << answer.error().message();
    EXPECT_EQ(answer->checkpoint, Epoch{7});
    EXPECT_FALSE(answer->restored);
  }
  EXPECT_EQ(count_of(".answer"), 2U) << "for when they are brought back";
  folder_.answer({}, RunAnswer{Epoch{8}});
  EXPECT_EQ(count_of(".answer"), 0U) << "of a checkpoint that is no longer the last";
}

TEST_F(RunFolderTest, WhoIsBroughtBackIsToldAgain) {
  auto asked = ask();
  const auto asks = wait_for_asks(1);
  folder_.answer(asks, RunAnswer{Epoch{7}});
  ASSERT_TRUE(asked.get());
  // The one that waits now did not wait then, and will ask again when it does.
  std::ofstream(folder_.path() + "/later.ask").close();
  folder_.go_back(Epoch{7});
  EXPECT_EQ(folder_.asks().size(), 0U);
  std::ifstream told(folder_.path() + "/" + asks.at(0) + ".answer");
  std::string line;
  std::getline(told, line);
  EXPECT_EQ(line, R"({"schema":1,"type":"result","checkpoint":7,"restored":true})");
}

TEST_F(RunFolderTest, AnAskThatIsGoneIsMadeAgain) {
  auto asked = ask();
  wait_for_asks(1);
  folder_.go_back(Epoch{7});
  const auto asks = wait_for_asks(1);
  ASSERT_EQ(asks.size(), 1U);
  folder_.answer(asks, RunAnswer{Epoch{9}});
  EXPECT_TRUE(asked.get());
}

TEST_F(RunFolderTest, WhyThereIsNoneIsTold) {
  auto asked = ask();
  folder_.answer(wait_for_asks(1), fail(ErrorKind::kVoid, "the disk is full"));
  const auto answer = asked.get();
  ASSERT_FALSE(answer);
  EXPECT_EQ(answer.error().kind, ErrorKind::kVoid);
  EXPECT_NE(answer.error().message().find("the disk is full"), std::string::npos);
}

// It looked for an answer, and asked again, just while it was answered.
TEST_F(RunFolderTest, AnAskThatHasAnAnswerIsNone) {
  for (const char* name : {"/a.ask", "/a.answer", "/b.ask"}) {
    std::ofstream(folder_.path() + name).close();
  }
  EXPECT_EQ(folder_.asks(), std::vector<std::string>{"b"});
  EXPECT_EQ(count_of(".ask"), 1U);
  EXPECT_EQ(count_of(".answer"), 1U);
}

// The checkpoint exists all the same: its confirmation came after the time-out.
TEST_F(RunFolderTest, WhoWasToldOfAFailureIsToldThatItIsBack) {
  auto asked = ask();
  const auto asks = wait_for_asks(1);
  folder_.answer(asks, fail(ErrorKind::kTimeout, "it may exist"));
  const auto before = asked.get();
  ASSERT_FALSE(before);
  EXPECT_EQ(before.error().kind, ErrorKind::kTimeout);
  folder_.go_back(Epoch{5});
  std::ifstream told(folder_.path() + "/" + asks.at(0) + ".answer");
  std::string line;
  std::getline(told, line);
  EXPECT_EQ(line, R"({"schema":1,"type":"result","checkpoint":5,"restored":true})");
}

// The checkpoint that they were told of is still the last.
TEST_F(RunFolderTest, ACheckpointThatFailsLeavesTheAnswersOfTheOneBefore) {
  auto asked = ask();
  folder_.answer(wait_for_asks(1), RunAnswer{Epoch{7}});
  ASSERT_TRUE(asked.get());
  folder_.answer({}, fail(ErrorKind::kVoid, "the disk is full"));
  EXPECT_EQ(count_of(".answer"), 1U);
}

TEST_F(RunFolderTest, OfACommandThatBeginsAnewNobodyHasAsked) {
  for (const char* name : {"/a.ask", "/b.answer", "/log"}) {
    std::ofstream(folder_.path() + name).close();
  }
  folder_.forget_asks();
  EXPECT_EQ(count_of(".ask") + count_of(".answer"), 0U);
  EXPECT_TRUE(fs::exists(folder_.log()));
}

TEST_F(RunFolderTest, TheBaseIsKept) {
  EXPECT_EQ(folder_.base(), Epoch{0});
  ASSERT_TRUE(folder_.note_base(Epoch{3}));
  ASSERT_TRUE(folder_.note_base(Epoch{12}));
  EXPECT_EQ(folder_.base(), Epoch{12});
}

TEST_F(RunFolderTest, NobodyAnswers) {
  const auto answer = ask(milliseconds(50)).get();
  ASSERT_FALSE(answer);
  EXPECT_EQ(answer.error().kind, ErrorKind::kTimeout);
  EXPECT_EQ(folder_.asks().size(), 0U);
}

TEST_F(RunFolderTest, ThereIsNoSuchFolder) {
  const auto answer = ask_for_checkpoint(folder_.path() + "/none", seconds(1));
  ASSERT_FALSE(answer);
  EXPECT_EQ(answer.error().number, ENOENT) << answer.error().message();
}

// As a number that another ckpt-tool has by now, one that runs no command.
TEST_F(RunFolderTest, WhatRunsOutsideIsNotLeft) {
  EXPECT_FALSE(folder_.leftover());
  std::array<char, 16> name{};
  ASSERT_EQ(prctl(PR_GET_NAME, name.data()), 0);
  ASSERT_EQ(prctl(PR_SET_NAME, "ckpt-tool"), 0);
  ASSERT_TRUE(folder_.note_root(getpid()));
  EXPECT_FALSE(folder_.leftover());
  prctl(PR_SET_NAME, name.data());
}

// Needs root, as `run` does.
TEST_F(RunFolderTest, WhatWasLeftIsThatVeryProcess) {
  const auto root = start_contained({{"sleep", "1000"}, folder_.log(), folder_.path(), {}});
  ASSERT_TRUE(root) << root.error().message();
  ASSERT_TRUE(folder_.note_root(*root));
  const auto left = folder_.leftover();
  EXPECT_TRUE(left && left->pid == *root);
  std::ofstream(folder_.path() + "/root") << *root << " 1\n";
  EXPECT_FALSE(folder_.leftover()) << "another one with its number";
  ::kill(*root, SIGKILL);
  ::waitpid(*root, nullptr, 0);
}

// The tool is killed; CRIU, which has the lock too, goes on.
TEST_F(RunFolderTest, ARestoreWaitsForTheProgramOfTheOneBefore) {
  const std::string started = state_.path() + "/started";
  const pid_t tool = ::fork();
  if (tool == 0) {
    const auto lock = RestoreLock::take(state_.path());
    (void)output_of({"/bin/sh", "-c", "touch " + started + "; sleep 1"}, seconds(30), lock->fd());
    _exit(1);
  }
  while (!fs::exists(started)) {
    std::this_thread::sleep_for(milliseconds(1));
  }
  ::kill(tool, SIGKILL);
  ::waitpid(tool, nullptr, 0);
  const auto began = std::chrono::steady_clock::now();
  EXPECT_TRUE(RestoreLock::take(state_.path()));
  EXPECT_GE(std::chrono::steady_clock::now() - began, milliseconds(500));
}

TEST(ContainedCommandTest, HowItEndedIsSaid) {
  EXPECT_EQ(how_it_ended(3), "ended with exit code 3");
  EXPECT_EQ(how_it_ended(128), "ended with exit code 128");
  EXPECT_EQ(how_it_ended(128 + 9), "was killed by signal 9");
  EXPECT_EQ(how_it_ended(255), "ended with exit code 255");
}

}  // namespace
}  // namespace ckpt
