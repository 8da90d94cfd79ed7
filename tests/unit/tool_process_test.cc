// SPDX-License-Identifier: Apache-2.0
// What the tool knows of processes, mounts and CRIU: out of texts that others have written.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <filesystem>
#include <fstream>
#include <future>
#include <thread>

#include "plugin/listeners.h"
#include "tools/criu.h"
#include "tools/hook_socket.h"
#include "tools/process_record.h"
#include "tools/work_folder.h"

namespace ckpt {
namespace {

TEST(Mounts, AreReadAsTheKernelWritesThem) {
  const auto mounts = parse_mounts(
      "36 35 43:0 / /mnt/my\\040data rw,noatime shared:1 master:2 - ext4 /dev/nbd0 rw,discard\n"
      "37 35 0:5 /sub /dev rw,nosuid - devtmpfs udev rw,size=10k,seclabel\n"
      "nonsense\n");
  ASSERT_EQ(mounts.size(), 2U);
  EXPECT_EQ(mounts[0].point, "/mnt/my data");
  EXPECT_EQ(mounts[0].source, "/dev/nbd0");
  EXPECT_EQ(mounts[0].type, "ext4");
  EXPECT_EQ(mounts[0].options, "rw,noatime,discard");
  EXPECT_EQ(mounts[0].device, makedev(43, 0));
  EXPECT_EQ(mounts[1].options, "rw,nosuid,size=10k");
  EXPECT_EQ(mounts[1].root, "/sub");
}

TEST(Mounts, WhatIsNoMountPointIsNotFound) {
  const auto found = find_mount("/proc/self/fd");
  ASSERT_FALSE(found);
  EXPECT_EQ(found.error().kind, ErrorKind::kNotFound);
  EXPECT_EQ(find_mount("/proc")->type, "proc");
}

TEST(Mounts, WhoUsesOneIsNamed) {
  const auto proc = find_mount("/proc");
  ASSERT_TRUE(proc);
  const std::ifstream open("/proc/self/status");
  const auto users = users_of(*proc);
  ASSERT_FALSE(users.empty());
  EXPECT_NE(users.front().find("process "), std::string::npos) << users.front();
}

TEST(NbdUri, BecomesTheWordsOfTheClient) {
  using Words = std::vector<std::string>;
  EXPECT_EQ(client_words(uri_of_path("/tmp/my disk#1")), (Words{"-unix", "/tmp/my disk#1"}));
  EXPECT_EQ(client_words("nbd://127.0.0.1:7000"), (Words{"127.0.0.1", "7000"}));
  EXPECT_EQ(client_words("nbd://[::1]:7000"), (Words{"::1", "7000"}));
  EXPECT_EQ(client_words("nbd://[::1]"), (Words{"::1", "10809"}));
  EXPECT_TRUE(client_words("nbds://host").empty());
  EXPECT_EQ(usable_uri({"nbds://host", "nbd://a:1", "nbd://b:2"}), "nbd://a:1");
}

TEST(CriuLog, ItsFirstErrorsAreTheReason) {
  EXPECT_EQ(errors_of("(00.01) Running pre-dump scripts\n"
                      "(00.02) Error (criu/files.c:1): Can't lookup mount=24 for fd=0\n"
                      "(00.03) Error (criu/util.c:642): exited, status=1\n"
                      "(00.03) Warn  (criu/x.c:1): what\n"
                      "(00.04) Error (criu/cr-dump.c:2): Dumping FAILED.\n"),
            "Can't lookup mount=24 for fd=0; Dumping FAILED.");
  EXPECT_EQ(errors_of("all is well\n"), "");
}

class CriuStatistics : public testing::Test {
 protected:
  CriuStatistics() {
    std::string pattern = testing::TempDir() + "criu-XXXXXX";
    folder_ = ::mkdtemp(pattern.data());
  }
  ~CriuStatistics() override { std::filesystem::remove_all(folder_); }
  std::optional<std::chrono::microseconds> frozen(const std::string& content) {
    std::ofstream(folder_ + "/stats-dump", std::ios::binary) << content;
    return frozen_time(folder_);
  }
  std::string folder_;
};

TEST_F(CriuStatistics, SayHowLongTheProcessesWereFrozen) {
  const std::string head("\x40\x59\x10\x55\x06\x33\x09\x57\x0a\x00\x00\x00", 12);
  // Field 1 of 10 bytes: freezing 300 us, frozen 65793 us, memdump 5 us.
  const std::string entry("\x0a\x09\x08\xac\x02\x10\x81\x82\x04\x18\x05", 11);
  EXPECT_EQ(frozen(head + entry), std::chrono::microseconds(65793));
  EXPECT_FALSE(frozen(""));
  EXPECT_FALSE(frozen(head));
  EXPECT_FALSE(frozen(head + entry.substr(0, 5)));
  EXPECT_FALSE(frozen(head + std::string(30, '\xff')));
}

ProcessRecord some_record() {
  return {"/dev/nbd3",
          4096,
          {{"/mnt/a b", "/dev/nbd3p1", "xfs", "rw,noatime"}},
          {{"criu-0", {{4711, "counter", "counter -v"}, {4712, "a (b", ""}}, false}},
          {"--shell-job"}};
}

TEST(ProcessRecordText, ComesBackAsItWas) {
  const auto back = decode_process_record(encode_process_record(some_record()));
  ASSERT_TRUE(back) << back.error().message();
  EXPECT_EQ(back->device, "/dev/nbd3");
  EXPECT_EQ(back->block_bytes, 4096U);
  EXPECT_EQ(back->mounts.at(0).point, "/mnt/a b");
  EXPECT_EQ(back->mounts.at(0).options, "rw,noatime");
  EXPECT_EQ(back->trees.at(0).processes.at(1).name, "a (b");
  EXPECT_EQ(back->trees.at(0).processes.at(1).pid, 4712);
  EXPECT_EQ(back->options, std::vector<std::string>{"--shell-job"});
}

// docs/process-format.md has it.
TEST(ProcessRecordText, IsAsDocumented) {
  EXPECT_EQ(
      encode_process_record(some_record()),
      R"({"schema":1,"device":"/dev/nbd3","block_bytes":4096,"mounts":[{"point":"/mnt/a b",)"
      R"("source":"/dev/nbd3p1","type":"xfs","options":"rw,noatime"}],"trees":[{"attachment":)"
      R"("criu-0","processes":[{"pid":4711,"name":"counter","command":"counter -v"},{"pid":4712,"name":"a (b","command":""}],"own_numbers":false}],)"
      R"("options":["--shell-job"]})");
}

// As records were before there was `run`.
TEST(ProcessRecordText, OwnNumbersMayBeAbsent) {
  std::string text = encode_process_record(some_record());
  const std::string field = ",\"own_numbers\":false";
  const auto back = decode_process_record(text.erase(text.find(field), field.size()));
  ASSERT_TRUE(back) << back.error().message();
  EXPECT_FALSE(back->trees.at(0).own_numbers);
  ProcessRecord with = some_record();
  with.trees.at(0).own_numbers = true;
  EXPECT_TRUE(decode_process_record(encode_process_record(with))->trees.at(0).own_numbers);
}

TEST(ProcessRecordText, ALoopDeviceHasAFile) {
  ProcessRecord record = some_record();
  record.device = "/dev/loop3";
  EXPECT_FALSE(decode_process_record(encode_process_record(record)));
  record.file = "relative";
  EXPECT_FALSE(decode_process_record(encode_process_record(record)));
  record.file = "/run/disk";
  const auto back = decode_process_record(encode_process_record(record));
  ASSERT_TRUE(back) << back.error().message();
  EXPECT_EQ(back->file, "/run/disk");
  record.device = "/dev/nbd3";
  EXPECT_FALSE(decode_process_record(encode_process_record(record)));
}

TEST(ProcessRecordText, AnythingElseIsRefused) {
  const std::string good = encode_process_record(some_record());
  const auto with = [&good](const std::string& what, const std::string& instead) {
    std::string text = good;
    return text.replace(text.find(what), what.size(), instead);
  };
  for (const std::string& bad :
       {std::string(), std::string("{}"), good.substr(0, good.size() / 2),
        with("\"schema\":1", "\"schema\":2"), with("/dev/nbd3\",\"block", "/dev/sda\",\"block"),
        with("4711", "0"), with("4711", "-1"), with("4711", "99999999999"),
        with("\"mounts\":[", "\"mounts\":[7,"), with("[\"--shell-job\"]", "[1]"),
        with("\"xfs\"", "null"), with("\"own_numbers\":false", "\"own_numbers\":0"),
        with("\"criu-0\"", "\"../criu-0\"")}) {
    const auto decoded = decode_process_record(bad);
    ASSERT_FALSE(decoded) << bad;
    EXPECT_EQ(decoded.error().kind, ErrorKind::kCorrupt) << bad;
  }
}

// A child that waits to be killed.
class Sleeper {
 public:
  Sleeper() : pid_(::fork()) {
    if (pid_ == 0) {
      for (;;) {
        ::pause();
      }
    }
  }
  ~Sleeper() {
    ::kill(pid_, SIGKILL);
    ::waitpid(pid_, nullptr, 0);
  }
  [[nodiscard]] pid_t pid() const { return pid_; }

 private:
  pid_t pid_;
};

TEST(ProcessTree, HasAllThatDescendFromIt) {
  const Sleeper child;
  const auto tree = process_tree(::getpid());
  ASSERT_TRUE(tree);
  EXPECT_EQ(tree->front().pid, ::getpid());
  EXPECT_TRUE(std::ranges::any_of(
      *tree, [&](const ProcessIdentity& process) { return process.pid == child.pid(); }));
  EXPECT_EQ(process_tree(child.pid())->size(), 1U);
}

TEST(ProcessTree, ChildrenThatHaveEndedAreSeenUntilTheyAreWaitedFor) {
  const pid_t child = ::fork();
  if (child == 0) {
    ::pause();
  }
  EXPECT_FALSE(has_ended_child(::getpid()));
  ::kill(child, SIGKILL);
  siginfo_t info{};
  ASSERT_EQ(::waitid(P_PID, static_cast<id_t>(child), &info, WEXITED | WNOWAIT), 0);
  EXPECT_TRUE(has_ended_child(::getpid()));
  ::waitpid(child, nullptr, 0);
  EXPECT_FALSE(has_ended_child(::getpid()));
}

TEST(ProcessTree, ThatOneIsToldToEndIsSeen) {
  const Sleeper child;
  ::kill(child.pid(), SIGSTOP);
  siginfo_t info{};
  ASSERT_EQ(::waitid(P_PID, static_cast<id_t>(child.pid()), &info, WSTOPPED), 0);
  ::kill(child.pid(), SIGWINCH);
  EXPECT_EQ(ending_signal(child.pid()), 0);
  ::kill(child.pid(), SIGTERM);
  EXPECT_EQ(ending_signal(child.pid()), SIGTERM);
  EXPECT_EQ(ending_signal(::getpid()), SIGTERM) << "of one that descends from it";
}

// Frozen with it, it would die of it whenever it is brought back.
TEST(ProcessTree, WhatKillsOneIsSeen) {
  auto* const handler = ::signal(SIGSEGV, SIG_DFL);  // a sanitizer's, perhaps
  const Sleeper child;
  ::signal(SIGSEGV, handler);
  ::kill(child.pid(), SIGSTOP);
  siginfo_t info{};
  ASSERT_EQ(::waitid(P_PID, static_cast<id_t>(child.pid()), &info, WSTOPPED), 0);
  ::kill(child.pid(), SIGSEGV);
  EXPECT_EQ(ending_signal(child.pid()), SIGSEGV);
}

TEST(ProcessTree, WhatCannotBeFrozenIsRefused) {
  const Sleeper child;
  EXPECT_TRUE(check_can_freeze(child.pid()));
  EXPECT_EQ(check_can_freeze(::getpid()).error().kind, ErrorKind::kInvalid);
  EXPECT_EQ(check_can_freeze(::getppid()).error().kind, ErrorKind::kInvalid);
  EXPECT_EQ(check_can_freeze(1 << 22).error().kind, ErrorKind::kNotFound);
}

TEST(ProcessTree, EndsThoseOnRecordAndNobodyElse) {
  const Sleeper child;
  auto recorded = *process_tree(child.pid());
  recorded.front().name = "another";
  const auto refused = end_processes(recorded);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().kind, ErrorKind::kBusy);
  EXPECT_EQ(::kill(child.pid(), 0), 0);
  EXPECT_TRUE(end_processes(*process_tree(child.pid())));
  EXPECT_EQ(check_can_freeze(child.pid()).error().kind, ErrorKind::kNotFound);
  EXPECT_TRUE(end_processes({{1 << 22, "gone", ""}}));
  EXPECT_EQ(check_can_end(*process_tree(::getppid())).error().kind, ErrorKind::kBusy);
}

// It gives its memory back first, which takes its time, and only then its files.
TEST(ProcessTree, OneThatIsStillEndingHasNotEnded) {
  char path[] = "/tmp/ckpt-ending-XXXXXX";
  const int file = ::mkostemp(path, O_CLOEXEC);
  ASSERT_GE(file, 0);
  ::unlink(path);
  int ready[2];
  ASSERT_EQ(::pipe(ready), 0);
  const pid_t child = ::fork();
  if (child == 0) {
    const std::string own = "/proc/self/fd/" + std::to_string(file);
    const int held = ::open(own.c_str(), O_RDWR | O_CLOEXEC);
    constexpr size_t kBytes = size_t{512} << 20U;
    void* const memory = ::mmap(nullptr, kBytes, PROT_READ | PROT_WRITE,
                                MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
    const bool done = memory != MAP_FAILED && ::flock(held, LOCK_EX) == 0;
    (void)::write(ready[1], done ? "y" : "n", 1);
    for (;;) {
      ::pause();
    }
  }
  char word = 0;
  ASSERT_EQ(::read(ready[0], &word, 1), 1);
  ASSERT_EQ(word, 'y');
  EXPECT_TRUE(end_processes(*process_tree(child)));
  EXPECT_EQ(::flock(file, LOCK_EX | LOCK_NB), 0) << "it still has its files";
  ::waitpid(child, nullptr, 0);
  for (const int end : {file, ready[0], ready[1]}) {
    ::close(end);
  }
}

// A number is free when the parent has taken notice, and not before: who does not is named.
TEST(ProcessTree, AParentThatTakesNoNoticeIsNamed) {
  const pid_t child = ::fork();
  if (child == 0) {
    ::_exit(0);
  }
  siginfo_t ended{};
  ASSERT_EQ(::waitid(P_PID, static_cast<id_t>(child), &ended, WEXITED | WNOWAIT), 0);
  const std::vector<ProcessIdentity> recorded{{child, "counter", ""}};
  const auto refused = check_numbers_free(recorded);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().kind, ErrorKind::kBusy);
  EXPECT_NE(refused.error().message().find("its parent, process " + std::to_string(::getpid())),
            std::string::npos)
      << refused.error().message();
  ASSERT_EQ(::waitpid(child, nullptr, 0), child);
  EXPECT_TRUE(check_numbers_free(recorded));
}

TEST(ProcessTree, AThreadThatHasTheNumberIsNamedByItsProcess) {
  std::promise<pid_t> told;
  std::promise<void> over;
  std::thread other([&] {
    told.set_value(::gettid());
    over.get_future().wait();
  });
  const pid_t number = told.get_future().get();
  const auto refused = check_can_end({{number, "counter", ""}});
  over.set_value();
  other.join();
  ASSERT_FALSE(refused);
  EXPECT_NE(refused.error().message().find("a thread of process " + std::to_string(::getpid())),
            std::string::npos)
      << refused.error().message();
}

TEST(HookSocketTest, CallsAreAnswered) {
  auto hook = HookSocket::make();
  ASSERT_TRUE(hook);
  const std::string socket = hook->script().substr(0, hook->script().rfind('/')) + "/socket";
  EXPECT_FALSE(hook->next(1));
  Result<> good = fail(ErrorKind::kIo, "not answered");
  Result<> bad;
  Result<> dropped;
  std::thread caller([&] {
    good = call_hook(socket, "pre-dump");
    bad = call_hook(socket, "post-dump");
    dropped = call_hook(socket, "post-dump");
  });
  auto call = hook->next(10000);
  ASSERT_TRUE(call);
  EXPECT_EQ(call->action(), "pre-dump");
  call->answer({});
  call = hook->next(10000);
  ASSERT_TRUE(call);
  EXPECT_EQ(call->action(), "post-dump");
  call->answer(fail(ErrorKind::kVoid, "the disk is full"));
  call = hook->next(10000);
  ASSERT_TRUE(call);
  call.reset();  // as when the command is killed
  caller.join();
  EXPECT_TRUE(good);
  EXPECT_EQ(bad.error().message(), "the disk is full");
  EXPECT_FALSE(dropped);
  EXPECT_FALSE(call_hook(socket + "-not-there", "post-dump"));
}

TEST(HookSocketTest, LeavesNothingBehind) {
  std::string script;
  {
    const auto hook = HookSocket::make();
    ASSERT_TRUE(hook);
    script = hook->script();
    EXPECT_EQ(::access(script.c_str(), X_OK), 0);
  }
  EXPECT_NE(::access(script.substr(0, script.rfind('/')).c_str(), F_OK), 0);
}

class WorkFolderTest : public testing::Test {
 protected:
  WorkFolderTest() {
    std::string pattern = testing::TempDir() + "work-XXXXXX";
    base_ = ::mkdtemp(pattern.data());
  }
  ~WorkFolderTest() override { std::filesystem::remove_all(base_); }
  std::string base_;
};

TEST_F(WorkFolderTest, IsGoneAtTheEnd) {
  std::string path;
  {
    const auto folder = WorkFolder::make(base_, "criu");
    ASSERT_TRUE(folder);
    path = folder->path();
    std::ofstream(path + "/file") << "x";
    EXPECT_TRUE(path.starts_with(base_ + "/criu."));
  }
  EXPECT_FALSE(std::filesystem::exists(path));
  EXPECT_EQ(WorkFolder::make(base_ + "/none", "criu").error().kind, ErrorKind::kNotFound);
}

TEST_F(WorkFolderTest, WhatAKilledCommandLeftIsRemovedAndNothingElse) {
  for (const char* name : {"criu.abcdef", "criu.abcdefg", "other.abcdef", "criu"}) {
    std::filesystem::create_directory(base_ + "/" + name);
    std::ofstream(base_ + "/" + name + "/file") << "x";
  }
  std::ofstream(base_ + "/criu.ghijkl") << "a file";
  const auto held = WorkFolder::make(base_, "criu");
  const auto next = WorkFolder::make(base_, "criu");
  ASSERT_TRUE(held && next);
  EXPECT_TRUE(std::filesystem::exists(held->path()));
  EXPECT_FALSE(std::filesystem::exists(base_ + "/criu.abcdef"));
  for (const char* name : {"criu.abcdefg", "other.abcdef", "criu", "criu.ghijkl"}) {
    EXPECT_TRUE(std::filesystem::exists(base_ + "/" + name)) << name;
  }
}

TEST_F(WorkFolderTest, OneThatIsKeptTakesNobodysPlace) {
  for (const bool is_free : {true, false}) {
    std::string path;
    {
      auto folder = WorkFolder::make(base_, "criu");
      ASSERT_TRUE(folder);
      path = folder->keep_as("7");
    }
    EXPECT_TRUE(std::filesystem::exists(path));
    EXPECT_EQ(path == base_ + "/7", is_free) << path;
  }
}

TEST_F(WorkFolderTest, ImagesAreToldFromThoseOfAnotherCheckpoint) {
  const ImageNote note{*Uuid::parse("01234567-89ab-4cde-8f01-23456789abcd"),
                       *Uuid::parse("11111111-2222-4333-8444-555555555555"), Epoch{7}};
  EXPECT_EQ(read_image_note(base_).error().kind, ErrorKind::kNotFound);
  ASSERT_TRUE(write_image_note(base_, note));
  const auto read = read_image_note(base_);
  ASSERT_TRUE(read);
  EXPECT_EQ(read->volume, note.volume);
  EXPECT_EQ(read->timeline, note.timeline);
  EXPECT_EQ(read->checkpoint, note.checkpoint);
  for (const char* bad : {"", "{}", "[]", "{\"schema\":1,\"volume\":\"x\"}"}) {
    std::ofstream(base_ + "/ckpt.json") << bad;
    EXPECT_EQ(read_image_note(base_).error().kind, ErrorKind::kCorrupt) << bad;
  }
}

}  // namespace
}  // namespace ckpt
