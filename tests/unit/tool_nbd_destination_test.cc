// SPDX-License-Identifier: Apache-2.0
// Exports to an NBD server: nbdkit, with a file to look at, and what may be wrong with it.
#include <gtest/gtest.h>
#include <sys/wait.h>

#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "tools/destination.h"
#include "tools/program.h"

namespace ckpt {
namespace {

namespace fs = std::filesystem;

class NbdDestinationTest : public testing::Test {
 protected:
  static constexpr uint64_t kSize = 64 * kPieceBytes;  // more pieces than may be in flight

  NbdDestinationTest() {
    std::string pattern = testing::TempDir() + "nbd-XXXXXX";
    folder_ = fs::canonical(::mkdtemp(pattern.data()));
    uri_ = "nbd+unix:///?socket=" + (folder_ / "socket").string();
  }
  ~NbdDestinationTest() override {
    kill_server();
    fs::remove_all(folder_);
  }

  // Serves a file full of 'o', with these words for nbdkit before the plugin's, and these after it.
  void serve(uint64_t size_bytes, const std::vector<std::string>& before = {},
             const std::vector<std::string>& after = {}) {
    const char* const path = std::getenv("PATH");
    const std::string nbdkit = find_program("nbdkit", path == nullptr ? "" : path);
    ASSERT_NE(nbdkit, "") << "there is no nbdkit";
    std::ofstream(disk()) << std::string(size_bytes, 'o');
    std::vector<std::string> words{
        nbdkit, "-f", "--exit-with-parent", "-U", folder_ / "socket", "-P", folder_ / "pid"};
    words.insert(words.end(), before.begin(), before.end());
    words.insert(words.end(), {"file", disk()});
    words.insert(words.end(), after.begin(), after.end());
    const auto is_ready = [this] { return fs::exists(folder_ / "pid"); };
    const auto started = start_detached(words, is_ready, std::chrono::seconds(60));
    ASSERT_TRUE(started) << started.error().message();
    server_ = *started;
  }
  void kill_server() {
    if (server_ > 0) {
      ::kill(server_, SIGKILL);
      ::waitpid(server_, nullptr, 0);
      server_ = -1;
    }
  }
  [[nodiscard]] std::unique_ptr<Destination> connect() const {
    auto destination = open_destination(uri_, true);
    EXPECT_TRUE(destination) << destination.error().message();
    return destination ? std::move(*destination) : nullptr;
  }
  // Pieces of letters from the end down, with a hole in every other place.
  static Result<> fill(Destination& destination) {
    CKPT_TRY(destination.begin({}, kSize));
    for (uint64_t i = kSize / kPieceBytes; i-- > 0;) {
      const std::vector<std::byte> piece(kPieceBytes, letter(i));
      CKPT_TRY(i % 2 == 0 ? destination.zero({i * kPieceBytes, kPieceBytes})
                          : destination.write(i * kPieceBytes, piece));
    }
    return destination.finish();
  }
  static std::byte letter(uint64_t piece) { return static_cast<std::byte>('A' + piece % 26); }
  static std::string filled() {
    std::string text;
    for (uint64_t i = 0; i < kSize / kPieceBytes; ++i) {
      text += std::string(kPieceBytes, i % 2 == 0 ? '\0' : static_cast<char>(letter(i)));
    }
    return text;
  }
  [[nodiscard]] std::string disk() const { return folder_ / "disk"; }
  [[nodiscard]] std::string content() const {
    std::ostringstream text;
    text << std::ifstream(disk(), std::ios::binary).rdbuf();
    return text.str();
  }
  void expect_error(const Result<>& outcome, ErrorKind kind, const std::string& text) const {
    ASSERT_FALSE(outcome);
    EXPECT_EQ(outcome.error().kind, kind);
    EXPECT_EQ(outcome.error().message().find(uri_), 0U) << outcome.error().message();
    EXPECT_NE(outcome.error().message().find(text), std::string::npos) << outcome.error().message();
  }

  fs::path folder_;
  std::string uri_;
  pid_t server_ = -1;
};

TEST_F(NbdDestinationTest, DataAndZeroesArrive) {
  serve(kSize);
  const auto destination = connect();
  ASSERT_NE(destination, nullptr);
  const auto exported = fill(*destination);
  ASSERT_TRUE(exported) << exported.error().message();
  EXPECT_TRUE(content() == filled());
}

TEST_F(NbdDestinationTest, AServerThatCannotZeroIsSentZeroes) {
  serve(kSize, {"--filter=nozero"}, {"zeromode=none"});
  const auto destination = connect();
  ASSERT_NE(destination, nullptr);
  ASSERT_TRUE(fill(*destination));
  EXPECT_TRUE(content() == filled());
}

TEST_F(NbdDestinationTest, WhatIsBeyondTheDiskStays) {
  serve(kSize + 4096);
  const auto destination = connect();
  ASSERT_NE(destination, nullptr);
  ASSERT_TRUE(fill(*destination));
  EXPECT_TRUE(content() == filled() + std::string(4096, 'o'));
}

TEST_F(NbdDestinationTest, AnExportThatIsTooSmallIsNotTouched) {
  serve(kSize - 512);
  const auto destination = connect();
  ASSERT_NE(destination, nullptr);
  expect_error(
      fill(*destination), ErrorKind::kNoSpace,
      " has " + std::to_string(kSize - 512) + " bytes, and the disk " + std::to_string(kSize));
  EXPECT_TRUE(content() == std::string(kSize - 512, 'o'));
}

TEST_F(NbdDestinationTest, AReadOnlyExportIsRefused) {
  serve(kSize, {"-r"});
  const auto destination = connect();
  ASSERT_NE(destination, nullptr);
  expect_error(fill(*destination), ErrorKind::kInvalid, " is read-only");
}

TEST_F(NbdDestinationTest, SaysWhatTheServerSaysOfTheExport) {
  serve(kSize, {"--filter=exportname"}, {"exportdesc=fixed:ckpt volume 1"});
  const auto destination = connect();
  ASSERT_NE(destination, nullptr);
  EXPECT_EQ(destination->description(), "ckpt volume 1");
}

TEST_F(NbdDestinationTest, AFullServerIsNoSpace) {
  serve(kSize, {"--filter=error"}, {"error-pwrite=ENOSPC", "error-pwrite-rate=100%"});
  const auto destination = connect();
  ASSERT_NE(destination, nullptr);
  expect_error(fill(*destination), ErrorKind::kNoSpace, "No space left");
}

TEST_F(NbdDestinationTest, AServerThatCannotZeroItsDiskFailsTheExport) {
  serve(kSize, {"--filter=error"}, {"error-zero=EIO", "error-zero-rate=100%"});
  const auto destination = connect();
  ASSERT_NE(destination, nullptr);
  expect_error(fill(*destination), ErrorKind::kIo, "Input/output error");
}

TEST_F(NbdDestinationTest, NobodyIsThere) {
  const auto absent = open_nbd_destination(uri_);
  ASSERT_FALSE(absent);
  EXPECT_EQ(absent.error().kind, ErrorKind::kIo);
  EXPECT_EQ(absent.error().message().find(uri_ + ": "), 0U) << absent.error().message();
  EXPECT_NE(absent.error().message().find("connect"), std::string::npos);
  EXPECT_FALSE(open_nbd_destination("nbd+unix:///")) << "it does not say where";
}

TEST_F(NbdDestinationTest, TheServerDiesBeforeTheEnd) {
  serve(kSize);
  const auto destination = connect();
  ASSERT_NE(destination, nullptr);
  ASSERT_TRUE(destination->begin({}, kSize));
  ASSERT_TRUE(destination->write(0, std::vector<std::byte>(kBlockBytes)));
  kill_server();
  const auto finished = destination->finish();
  ASSERT_FALSE(finished) << "what is not flushed may be lost";
  EXPECT_EQ(finished.error().message().find(uri_), 0U) << finished.error().message();
}

TEST_F(NbdDestinationTest, TheServerDiesInTheMiddle) {
  serve(kSize);
  const auto destination = connect();
  ASSERT_NE(destination, nullptr);
  ASSERT_TRUE(destination->begin({}, kSize));
  kill_server();
  Result<> written;
  for (uint64_t i = 0; written && i < kSize / kPieceBytes; ++i) {
    written = destination->write(i * kPieceBytes, std::vector<std::byte>(kPieceBytes));
  }
  ASSERT_FALSE(written);
  EXPECT_EQ(written.error().message().find(uri_), 0U) << written.error().message();
}

}  // namespace
}  // namespace ckpt
