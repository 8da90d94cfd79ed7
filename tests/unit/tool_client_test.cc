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

// What a volume does with what is brought: takes it all.
Result<CheckpointOutcome> take_all(const CheckpointRequest& request) {
  while (!request.attachments->is_complete()) {
    if (auto problem = request.attachments->problem()) {
      return Unexpected(*problem);
    }
    (void)request.attachments->take(std::chrono::milliseconds(10));
  }
  CheckpointOutcome outcome{sample_checkpoint(7), {}, {}};
  outcome.checkpoint.attachments = request.attachments->infos();
  return outcome;
}

// A request with one attachment of so many pieces, that somebody brings meanwhile.
class Bringer {
 public:
  explicit Bringer(uint64_t pieces, std::optional<Error> problem = std::nullopt)
      : feed_(*AttachmentFeed::make({"memory"})), thread_([this, pieces, problem] {
          const std::vector<std::byte> raw(kPieceBytes, std::byte{9});
          Result<> put;
          for (uint64_t i = 0; put && i < pieces; ++i) {
            put = feed_->put({0, encode_piece(i * kPieceBytes, raw, {Codec::kNone, 1})});
          }
          problem ? feed_->abort(*problem) : feed_->end();
        }) {}
  ~Bringer() {
    feed_->stop();
    thread_.join();
  }
  Bringer(const Bringer&) = delete;
  Bringer& operator=(const Bringer&) = delete;
  [[nodiscard]] CheckpointRequest request() const {
    CheckpointRequest request;
    request.attachments = feed_;
    return request;
  }

 private:
  std::shared_ptr<AttachmentFeed> feed_;
  std::thread thread_;
};

// Before the attachments are brought: they may be made only then.
TEST_F(RemoteVolumeTest, TheCutIsToldThroughTheSocket) {
  const auto server = ControlServer::start(directory_, volume_);
  ASSERT_TRUE(server);
  volume_.on_checkpoint = [](const CheckpointRequest& request) {
    request.on_cut(Epoch{7});
    return take_all(request);
  };
  auto feed = *AttachmentFeed::make({"memory"});
  Epoch told;
  CheckpointRequest request;
  request.attachments = feed;
  request.on_cut = [&](Epoch number) {
    told = number;
    feed->end();
  };
  const auto outcome = RemoteVolume(directory_).checkpoint(request);
  ASSERT_TRUE(outcome) << outcome.error().message();
  EXPECT_EQ(told, Epoch{7});
}

TEST_F(RemoteVolumeTest, OneThatFailsBeforeTheCutSaysWhy) {
  const auto server = ControlServer::start(directory_, volume_);
  ASSERT_TRUE(server);
  volume_.on_checkpoint = [](const CheckpointRequest&) -> Result<CheckpointOutcome> {
    return fail(ErrorKind::kVoid, "the store is full");
  };
  bool told = false;
  CheckpointRequest request;
  request.on_cut = [&](Epoch) { told = true; };
  const auto outcome = RemoteVolume(directory_).checkpoint(request);
  ASSERT_FALSE(outcome);
  EXPECT_EQ(outcome.error().message(), "the store is full");
  EXPECT_FALSE(told);
}

TEST_F(RemoteVolumeTest, AttachmentsAreBroughtThroughTheSocket) {
  const auto server = ControlServer::start(directory_, volume_);
  ASSERT_TRUE(server);
  volume_.on_checkpoint = take_all;
  const Bringer bringer(20);
  const auto outcome = RemoteVolume(directory_).checkpoint(bringer.request());
  ASSERT_TRUE(outcome) << outcome.error().message();
  ASSERT_EQ(outcome->checkpoint.attachments.size(), 1U);
  EXPECT_EQ(outcome->checkpoint.attachments[0].name, "memory");
  EXPECT_EQ(outcome->checkpoint.attachments[0].size_bytes, 20 * kPieceBytes);
}

TEST_F(RemoteVolumeTest, AnAnswerBeforeAllIsBroughtIsHeard) {
  const auto server = ControlServer::start(directory_, volume_);
  ASSERT_TRUE(server);
  volume_.on_checkpoint = [](const CheckpointRequest& request) {
    (void)request.attachments->take(std::chrono::seconds(1));
    return fail(ErrorKind::kNoSpace, "the store is full");
  };
  const Bringer bringer(100);
  const auto outcome = RemoteVolume(directory_).checkpoint(bringer.request());
  ASSERT_FALSE(outcome);
  EXPECT_EQ(outcome.error().kind, ErrorKind::kNoSpace) << outcome.error().message();
  EXPECT_EQ(RemoteVolume(directory_).status().state, "running");
}

// A guest's memory may hold anything.
TEST_F(RemoteVolumeTest, WhatIsAttachedIsNeverTakenForRequests) {
  const auto server = ControlServer::start(directory_, volume_);
  ASSERT_TRUE(server);
  std::atomic<int> accepted{0};
  volume_.on_accept = [&] {
    ++accepted;
    return Result<>();
  };
  volume_.on_checkpoint = [](const CheckpointRequest& request) {
    (void)request.attachments->take(std::chrono::seconds(1));
    return fail(ErrorKind::kVoid, "its time is over");
  };
  const std::string lines =
      "\n"
      R"({"schema":1,"command":"accept"})"
      "\n";
  for (const char* request : {R"({"schema":1,"command":"checkpoint","attachments":["a"]})",
                              R"({"schema":1,"command":"checkpoint","attachments":["a/b"]})"}) {
    auto connection = ControlConnection::connect(directory_);
    ASSERT_TRUE(connection);
    const std::string head = encode_piece_line({0, 1000});
    ASSERT_TRUE(connection->send(std::string(request) + "\n" + head, std::nullopt));
    for (int i = 0; i < 2000; ++i) {
      if (!connection->send(lines, std::chrono::milliseconds(200))) {
        break;
      }
    }
    const auto answer = connection->receive_line(kAnswerBytesMax, std::chrono::seconds(10));
    ASSERT_TRUE(answer && *answer);
    EXPECT_NE((*answer)->find("error"), std::string::npos);
    const auto end = connection->receive_line(kAnswerBytesMax, std::chrono::seconds(10));
    EXPECT_FALSE(end && *end) << "nothing more is answered";
  }
  EXPECT_EQ(accepted, 0);
}

TEST_F(RemoteVolumeTest, WhatCannotBeBroughtIsAbortedAtTheServer) {
  const auto server = ControlServer::start(directory_, volume_);
  ASSERT_TRUE(server);
  std::atomic<bool> was_aborted{false};
  volume_.on_checkpoint = [&](const CheckpointRequest& request) {
    auto taken = take_all(request);
    was_aborted = !taken;
    return taken;
  };
  const Bringer bringer(3, Error{ErrorKind::kIo, EIO, "read /run/state"});
  const auto outcome = RemoteVolume(directory_).checkpoint(bringer.request());
  ASSERT_FALSE(outcome);
  EXPECT_NE(outcome.error().message().find("/run/state"), std::string::npos);
  for (int i = 0; i < 500 && !was_aborted; ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  EXPECT_TRUE(was_aborted) << "the client is gone";
}

TEST_F(RemoteVolumeTest, BadPiecesAbort) {
  const auto server = ControlServer::start(directory_, volume_);
  ASSERT_TRUE(server);
  volume_.on_checkpoint = take_all;
  for (const std::string piece : {R"({"schema":1,"type":"piece","index":0,"length":1048625})",
                                  R"({"schema":1,"type":"piece","index":32,"length":1})",
                                  R"({"schema":1,"type":"hole"})", "nonsense"}) {
    auto connection = ControlConnection::connect(directory_);
    ASSERT_TRUE(connection);
    ASSERT_TRUE(connection->send_line(R"({"schema":1,"command":"checkpoint","attachments":["a"]})",
                                      std::nullopt));
    ASSERT_TRUE(connection->send_line(piece, std::nullopt));
    const auto answer = connection->receive_line(kAnswerBytesMax, std::nullopt);
    ASSERT_TRUE(answer && *answer) << piece;
    EXPECT_NE((*answer)->find("attachments"), std::string::npos) << **answer;
  }
}

TEST_F(RemoteVolumeTest, AnAttachmentIsReadBack) {
  const auto server = ControlServer::start(directory_, volume_);
  ASSERT_TRUE(server);
  const auto piece = encode_piece(0, std::vector<std::byte>(5000, std::byte{3}), {});
  volume_.on_read_attachment = [&](const std::string& id, const std::string& name,
                                   PieceSink& sink) -> Result<> {
    if (id != "7" || name != "memory") {
      return fail(ErrorKind::kNotFound, "no " + name);
    }
    return sink.take(*check_piece(piece), piece);
  };
  struct Copy : PieceSink {
    Result<> take(const PieceHeader& header, ConstByteSpan whole) override {
      return decode_piece(header, whole, raw);
    }
    std::vector<std::byte> raw;
  } copy;
  ASSERT_TRUE(RemoteVolume(directory_).read_attachment("7", "memory", copy));
  EXPECT_EQ(copy.raw, std::vector<std::byte>(5000, std::byte{3}));
  EXPECT_EQ(RemoteVolume(directory_).read_attachment("7", "x", copy).error().kind,
            ErrorKind::kNotFound);
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
