// SPDX-License-Identifier: Apache-2.0
// A volume asked through its socket says what it says itself; a server that breaks off is the right
// kind of error.
#include <gtest/gtest.h>
#include <sys/socket.h>

#include <filesystem>
#include <thread>

#include "plugin/control_server.h"
#include "tests/unit/control_fake_volume.h"
#include "tools/client.h"

namespace ckpt {
namespace {

class RemoteVolumeTest : public testing::Test {
 protected:
  RemoteVolumeTest() {
    std::string pattern = testing::TempDir() + "client-XXXXXX";
    directory_ = ::mkdtemp(pattern.data());
  }
  ~RemoteVolumeTest() override { std::filesystem::remove_all(directory_); }

  std::string directory_;
  FakeVolume volume_;
};

TEST_F(RemoteVolumeTest, EveryCall) {
  const auto server = ControlServer::start(directory_, volume_);
  ASSERT_TRUE(server);
  RemoteVolume remote(directory_);
  EXPECT_EQ(remote.status().state, "running");
  EXPECT_EQ(remote.checkpoints()->size(), 2U);
  EXPECT_EQ(remote.checkpoint({})->checkpoint.id.number, Epoch{7});
  EXPECT_EQ(remote.roll_back({}, {})->restored_bytes, 8192U);
  EXPECT_EQ(remote.verify({})->skipped_bytes, 4096U);
  EXPECT_TRUE(remote.accept());
  EXPECT_EQ(volume_.calls, 6);
}

TEST_F(RemoteVolumeTest, RequestsArriveAsTheyWere) {
  RollbackRequest seen;
  volume_.on_rollback = [&](const RollbackRequest& request, const Progress&) {
    seen = request;
    return fail(ErrorKind::kBusy, "2 clients are connected");
  };
  const auto server = ControlServer::start(directory_, volume_);
  ASSERT_TRUE(server);
  const auto outcome = RemoteVolume(directory_).roll_back({"5", ClientPolicy::kFence, true}, {});
  ASSERT_FALSE(outcome);
  EXPECT_EQ(outcome.error().kind, ErrorKind::kBusy);
  EXPECT_EQ(outcome.error().message(), "2 clients are connected");
  EXPECT_EQ(seen.checkpoint, "5");
  EXPECT_EQ(seen.clients, ClientPolicy::kFence);
  EXPECT_TRUE(seen.dry_run);
}

TEST_F(RemoteVolumeTest, ProgressIsToldAndCanStop) {
  volume_.on_verify = [&](const Progress& progress) -> Result<VerifyOutcome> {
    for (int i = 0; i < 1000 && progress(1, 2); ++i) {
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
    }
    return fail(ErrorKind::kVoid, "stopped");
  };
  const auto server = ControlServer::start(directory_, volume_);
  ASSERT_TRUE(server);
  int told = 0;
  const auto outcome = RemoteVolume(directory_).verify([&](uint64_t done, uint64_t total) {
    EXPECT_EQ(done, 1U);
    EXPECT_EQ(total, 2U);
    return ++told < 2;
  });
  EXPECT_FALSE(outcome);
  EXPECT_EQ(told, 2);
}

TEST_F(RemoteVolumeTest, NobodyThere) {
  RemoteVolume remote(directory_);
  EXPECT_EQ(remote.status().state, "");
  EXPECT_NE(remote.status().problem, "");
  EXPECT_EQ(remote.accept().error().kind, ErrorKind::kNotFound);
}

// Takes one request and says nothing but some text.
void hang_up_after(const std::string& directory, const std::string& text, const auto& call) {
  const auto listening = listen_control(directory);
  ASSERT_TRUE(listening);
  std::thread server([&] {
    int fd = -1;
    while (fd < 0) {
      fd = ::accept4(listening->get(), nullptr, nullptr, SOCK_CLOEXEC);
      std::this_thread::yield();
    }
    ControlConnection connection{UniqueFd(fd)};
    (void)connection.receive_line(kRequestBytesMax, std::nullopt);
    if (!text.empty()) {
      (void)connection.send_line(text, std::nullopt);
    }
  });
  call();
  server.join();
  remove_control(directory);
}

TEST_F(RemoteVolumeTest, ServerThatDiesLeavesTheRightDoubt) {
  RemoteVolume remote(directory_);
  hang_up_after(directory_, "",
                [&] { EXPECT_EQ(remote.checkpoint({}).error().kind, ErrorKind::kTimeout); });
  hang_up_after(directory_, encode_progress({1, 2}),
                [&] { EXPECT_EQ(remote.roll_back({}, {}).error().kind, ErrorKind::kHalfway); });
  hang_up_after(directory_, "", [&] {
    EXPECT_EQ(remote.roll_back({"last", ClientPolicy::kRefuse, true}, {}).error().kind,
              ErrorKind::kIo);
  });
  hang_up_after(directory_, "", [&] { EXPECT_EQ(remote.verify({}).error().kind, ErrorKind::kIo); });
}

TEST_F(RemoteVolumeTest, AnswerThatIsNoneIsCorrupt) {
  RemoteVolume remote(directory_);
  hang_up_after(directory_, "HTTP/1.1 400 Bad Request",
                [&] { EXPECT_EQ(remote.checkpoints().error().kind, ErrorKind::kCorrupt); });
  hang_up_after(directory_, R"({"schema":1,"type":"result"})",
                [&] { EXPECT_EQ(remote.checkpoints().error().kind, ErrorKind::kCorrupt); });
}

}  // namespace
}  // namespace ckpt
