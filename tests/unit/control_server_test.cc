// SPDX-License-Identifier: Apache-2.0
// The control server over a real socket: good clients, bad clients, and many of them.
#include "plugin/control_server.h"

#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include <filesystem>
#include <thread>

#include "tests/unit/control_fake_volume.h"

namespace ckpt {
namespace {

using std::chrono::milliseconds;
constexpr milliseconds kSoon{5000};

// A flag that one thread raises and another waits for.
class Signal {
 public:
  void raise() {
    const MutexLock lock(mutex_);
    raised_ = true;
    condition_.notify_all();
  }
  // False: not within a time in which everything happens.
  bool wait() {
    const MutexLock lock(mutex_);
    for (int i = 0; i < 100 && !raised_; ++i) {
      condition_.wait_for(mutex_, milliseconds(50));
    }
    return raised_;
  }

 private:
  Mutex mutex_;
  CondVar condition_;
  bool raised_ CKPT_GUARDED_BY(mutex_) = false;
};

class ControlServerTest : public testing::Test {
 protected:
  ControlServerTest() {
    std::string pattern = testing::TempDir() + "control-XXXXXX";
    directory_ = ::mkdtemp(pattern.data());
  }
  ~ControlServerTest() override {
    server_.reset();
    std::filesystem::remove_all(directory_);
  }

  void start(ControlLimits limits = {}) {
    auto server = ControlServer::start(directory_, volume_, limits);
    ASSERT_TRUE(server) << server.error().message();
    server_ = std::move(*server);
  }
  ControlConnection connect() {
    auto connection = ControlConnection::connect(directory_);
    EXPECT_TRUE(connection) << connection.error().message();
    return std::move(*connection);
  }
  // The next line; empty at the end of the connection.
  static std::string receive(ControlConnection& connection) {
    auto line = connection.receive_line(kAnswerBytesMax, kSoon);
    return line && *line ? **line : "";
  }
  std::string ask(ControlConnection& connection, const std::string& line) {
    EXPECT_TRUE(connection.send_line(line, kSoon));
    return receive(connection);
  }
  static bool is_result(const std::string& line) {
    return line.starts_with(R"({"schema":1,"type":"result")");
  }
  static bool is_error(const std::string& line, const std::string& kind) {
    return line.find("\"type\":\"error\"") != std::string::npos &&
           line.find("\"kind\":\"" + kind + "\"") != std::string::npos;
  }

  const std::string status_ = encode_request(StatusRequest{});
  std::string directory_;
  FakeVolume volume_;
  std::unique_ptr<ControlServer> server_;
};

TEST_F(ControlServerTest, AnswersOneRequestAfterAnother) {
  start();
  ControlConnection connection = connect();
  EXPECT_TRUE(is_result(ask(connection, status_)));
  EXPECT_TRUE(is_result(ask(connection, encode_request(ListRequest{}))));
  EXPECT_TRUE(is_result(ask(connection, encode_request(CheckpointRequest{}))));
  EXPECT_TRUE(is_result(ask(connection, encode_request(AcceptRequest{}))));
  EXPECT_EQ(volume_.calls, 4);
}

TEST_F(ControlServerTest, SocketIsOurs) {
  const mode_t before = ::umask(0);
  start();
  ::umask(before);
  struct stat info {};
  ASSERT_EQ(::stat((directory_ + "/control.sock").c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 07777U, 0600U);
  server_->stop();
  EXPECT_NE(::stat((directory_ + "/control.sock").c_str(), &info), 0);
}

TEST_F(ControlServerTest, WhoMayAsk) {
  EXPECT_TRUE(peer_allowed(0, 1000));
  EXPECT_TRUE(peer_allowed(1000, 1000));
  EXPECT_FALSE(peer_allowed(1001, 1000));
  EXPECT_FALSE(peer_allowed(1000, 0));
}

TEST_F(ControlServerTest, ErrorsOfTheVolumeArriveWhole) {
  volume_.on_checkpoint = [](const CheckpointRequest&) {
    return fail(ErrorKind::kTimeout, "store x: no answer; checkpoint 9 may exist");
  };
  start();
  ControlConnection connection = connect();
  const std::string line = ask(connection, encode_request(CheckpointRequest{}));
  EXPECT_TRUE(is_error(line, "timeout"));
  EXPECT_NE(line.find("checkpoint 9 may exist"), std::string::npos);
}

TEST_F(ControlServerTest, InvalidRequestLeavesTheConnectionUsable) {
  start();
  ControlConnection connection = connect();
  EXPECT_TRUE(is_error(ask(connection, "rm -rf /"), "invalid"));
  EXPECT_TRUE(is_error(ask(connection, ""), "invalid"));
  EXPECT_TRUE(is_error(ask(connection, std::string(60000, '[')), "invalid"));
  EXPECT_EQ(volume_.calls, 0);
  EXPECT_TRUE(is_result(ask(connection, status_)));
}

TEST_F(ControlServerTest, OversizedLineEndsTheConnection) {
  start();
  ControlConnection connection = connect();
  // More than the socket's buffers hold: the server must not wait for the rest.
  (void)connection.send_line(std::string(4U << 20U, 'x'), milliseconds(500));
  EXPECT_TRUE(is_error(receive(connection), "invalid"));
  EXPECT_EQ(receive(connection), "");
  ControlConnection next = connect();
  EXPECT_TRUE(is_result(ask(next, status_)));
}

TEST_F(ControlServerTest, HalfRequestTimesOut) {
  ControlLimits limits;
  limits.request_timeout = milliseconds(100);
  start(limits);
  ControlConnection half = connect();
  ASSERT_TRUE(half.send_line(status_, kSoon));
  EXPECT_TRUE(is_result(receive(half)));
  EXPECT_TRUE(is_error(receive(half), "timeout"));  // the next request never comes
  EXPECT_EQ(receive(half), "");
}

TEST_F(ControlServerTest, ClientThatHalfClosesIsAnswered) {
  start();
  UniqueFd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_un name{AF_UNIX, {}};
  const std::string path = directory_ + "/control.sock";
  ASSERT_LT(path.size(), sizeof(name.sun_path));
  path.copy(name.sun_path, path.size());
  ASSERT_EQ(::connect(fd.get(), reinterpret_cast<sockaddr*>(&name), sizeof(name)), 0);
  const std::string request = encode_request(VerifyRequest{}) + "\n";
  ASSERT_EQ(::send(fd.get(), request.data(), request.size(), 0),
            static_cast<ssize_t>(request.size()));
  ::shutdown(fd.get(), SHUT_WR);
  ControlConnection connection(std::move(fd));
  EXPECT_TRUE(is_result(receive(connection)));
}

TEST_F(ControlServerTest, TooManyConnectionsAreTurnedAway) {
  start();
  std::vector<ControlConnection> clients;
  for (size_t i = 0; i < ControlLimits{}.connections_max; ++i) {
    clients.push_back(connect());
    ASSERT_TRUE(is_result(ask(clients.back(), status_)));
  }
  ControlConnection refused = connect();
  EXPECT_TRUE(is_error(receive(refused), "busy"));
  clients.clear();
  // Places are free again as soon as the server has seen them go.
  std::string line;
  for (int i = 0; i < 100 && !is_result(line); ++i) {
    ControlConnection next = connect();
    (void)next.send_line(status_, kSoon);
    line = receive(next);
  }
  EXPECT_TRUE(is_result(line));
}

TEST_F(ControlServerTest, ConcurrentClients) {
  start();
  std::atomic<int> results{0};
  std::vector<std::thread> clients;
  for (int i = 0; i < 8; ++i) {
    clients.emplace_back([&] {
      for (int k = 0; k < 50; ++k) {
        ControlConnection connection = connect();
        results += is_result(ask(connection, status_)) ? 1 : 0;
      }
    });
  }
  for (std::thread& client : clients) {
    client.join();
  }
  EXPECT_EQ(results, 400);
}

TEST_F(ControlServerTest, ProgressThenResult) {
  ControlLimits limits;
  limits.progress_interval = milliseconds(0);
  volume_.on_verify = [](const Progress& progress) -> Result<VerifyOutcome> {
    EXPECT_TRUE(progress(1, 3));
    EXPECT_TRUE(progress(2, 3));
    return VerifyOutcome{sample_checkpoint(7), 3, 0, 0, {}};
  };
  start(limits);
  ControlConnection connection = connect();
  EXPECT_EQ(ask(connection, encode_request(VerifyRequest{})), encode_progress({1, 3}));
  EXPECT_EQ(receive(connection), encode_progress({2, 3}));
  EXPECT_TRUE(is_result(receive(connection)));
}

TEST_F(ControlServerTest, DisconnectStopsAVerify) {
  Signal begun;
  Signal stopped;
  volume_.on_verify = [&](const Progress& progress) -> Result<VerifyOutcome> {
    begun.raise();
    for (int i = 0; i < 500; ++i) {
      if (!progress(1, 2)) {
        stopped.raise();
        return fail(ErrorKind::kVoid, "stopped");
      }
      std::this_thread::sleep_for(milliseconds(10));
    }
    return VerifyOutcome{};
  };
  start();
  {
    ControlConnection connection = connect();
    ASSERT_TRUE(connection.send_line(encode_request(VerifyRequest{}), kSoon));
    ASSERT_TRUE(begun.wait());
  }
  EXPECT_TRUE(stopped.wait());
}

TEST_F(ControlServerTest, DisconnectDoesNotStopARollbackOrACheckpoint) {
  Signal begun;
  Signal left;
  Signal finished;
  volume_.on_rollback = [&](const RollbackRequest&, const Progress& progress) {
    begun.raise();
    left.wait();
    for (int i = 0; i < 10; ++i) {
      EXPECT_TRUE(progress(1, 2));
    }
    finished.raise();
    return RollbackOutcome{};
  };
  ControlLimits limits;
  limits.progress_interval = milliseconds(0);
  start(limits);
  {
    ControlConnection connection = connect();
    ASSERT_TRUE(connection.send_line(encode_request(RollbackRequest{}), kSoon));
    ASSERT_TRUE(begun.wait());
  }
  left.raise();
  EXPECT_TRUE(finished.wait());
}

TEST_F(ControlServerTest, ClientThatDoesNotReadIsGone) {
  ControlLimits limits;
  limits.answer_timeout = milliseconds(50);
  limits.progress_interval = milliseconds(0);
  Signal stopped;
  volume_.on_verify = [&](const Progress& progress) -> Result<VerifyOutcome> {
    while (progress(1, 2)) {
    }
    stopped.raise();
    return fail(ErrorKind::kVoid, "stopped");
  };
  start(limits);
  ControlConnection connection = connect();
  ASSERT_TRUE(connection.send_line(encode_request(VerifyRequest{}), kSoon));
  EXPECT_TRUE(stopped.wait());
}

TEST_F(ControlServerTest, StopEndsIdleConnectionsAndVerifies) {
  Signal begun;
  volume_.on_verify = [&](const Progress& progress) -> Result<VerifyOutcome> {
    begun.raise();
    while (progress(1, 2)) {
      std::this_thread::sleep_for(milliseconds(1));
    }
    return fail(ErrorKind::kVoid, "stopped");
  };
  start();
  ControlConnection idle = connect();
  ASSERT_TRUE(is_result(ask(idle, status_)));
  ControlConnection verifying = connect();
  ASSERT_TRUE(verifying.send_line(encode_request(VerifyRequest{}), kSoon));
  ASSERT_TRUE(begun.wait());
  server_->stop();
  EXPECT_EQ(receive(idle), "");
  server_->stop();
}

TEST_F(ControlServerTest, StaleSocketIsReplacedALiveOneIsNot) {
  {
    auto dead = listen_control(directory_);
    ASSERT_TRUE(dead);
  }
  EXPECT_EQ(ControlConnection::connect(directory_).error().kind, ErrorKind::kNotFound);
  start();
  const auto second = ControlServer::start(directory_, volume_);
  ASSERT_FALSE(second);
  EXPECT_EQ(second.error().kind, ErrorKind::kBusy);
  ControlConnection connection = connect();
  EXPECT_TRUE(is_result(ask(connection, status_)));
}

TEST_F(ControlServerTest, DeepStateDirectory) {
  const std::string top = directory_;
  for (int i = 0; i < 6; ++i) {
    directory_ += "/" + std::string(60, 'd');
  }
  std::filesystem::create_directories(directory_);
  start();
  {
    ControlConnection connection = connect();
    EXPECT_TRUE(is_result(ask(connection, status_)));
  }
  server_.reset();
  directory_ = top;
}

TEST_F(ControlServerTest, NoSuchDirectory) {
  EXPECT_FALSE(ControlServer::start(directory_ + "/none", volume_));
  EXPECT_EQ(ControlConnection::connect(directory_ + "/none").error().kind, ErrorKind::kNotFound);
}

// All that comes on a connection until it ends.
std::string rest_of(ControlConnection& connection) {
  std::string text;
  for (;;) {
    const auto line = connection.receive_line(kAnswerBytesMax, kSoon);
    if (!line || !*line) {
      return text;
    }
    text += **line + "\n";
  }
}

TEST_F(ControlServerTest, MetricsOverHttp) {
  start();
  ControlConnection friendly = connect();
  ASSERT_TRUE(friendly.send("GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n", kSoon));
  const std::string answer = rest_of(friendly);
  EXPECT_EQ(answer.find("HTTP/1.1 200 OK\r\n"), 0U) << answer;
  EXPECT_NE(answer.find("\nckpt_up{image=\"/srv/disk.img\"} 1\n"), std::string::npos);
  ControlConnection lost = connect();
  ASSERT_TRUE(lost.send("GET /elsewhere HTTP/1.1\r\n\r\n", kSoon));
  EXPECT_EQ(rest_of(lost).find("HTTP/1.1 404 Not Found\r\n"), 0U);
  EXPECT_EQ(volume_.calls, 1);
}

TEST_F(ControlServerTest, HeadersAreBoundedInSizeAndTime) {
  start({.request_timeout = milliseconds(300)});
  ControlConnection slow = connect();
  ASSERT_TRUE(slow.send("GET /metrics HTTP/1.1\r\nHost: ", kSoon));
  EXPECT_EQ(rest_of(slow).find("HTTP/1.1 408 "), 0U);
  ControlConnection long_one = connect();
  std::string headers = "GET /metrics HTTP/1.1\r\n";
  while (headers.size() < kRequestBytesMax + 100) {
    headers += "a: b\r\n";
  }
  (void)long_one.send(headers, kSoon);
  EXPECT_EQ(rest_of(long_one).find("HTTP/1.1 431 "), 0U);
  EXPECT_EQ(volume_.calls, 0);
}

}  // namespace
}  // namespace ckpt
