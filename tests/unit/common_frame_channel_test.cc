// SPDX-License-Identifier: Apache-2.0
// Frames over a real socket: whole, in order, or an error in time.
#include <gtest/gtest.h>
#include <sys/socket.h>

#include <array>
#include <atomic>
#include <thread>

#include "common/clock.h"
#include "common/frame_channel.h"
#include "common/message.h"
#include "common/socket_stream.h"

namespace ckpt::test {
namespace {

using std::chrono::milliseconds;

constexpr milliseconds kSilence{200};

// One end of a connection is the channel's, the other is ours.
class Connected {
 public:
  Connected() {
    int pair[2] = {-1, -1};
    EXPECT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
    peer_ = UniqueFd(pair[0]);
    stream_ = std::make_unique<SocketStream>(UniqueFd(pair[1]), "the peer", kSilence);
    channel_ = std::make_unique<FrameChannel>(*stream_);
    channel_->set_connection(7);
  }

  void say(ConstByteSpan bytes) const {
    ASSERT_EQ(::send(peer_.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL),
              static_cast<ssize_t>(bytes.size()));
  }
  Result<> hear() { return channel_->receive(heard_); }

  UniqueFd peer_;
  std::unique_ptr<SocketStream> stream_;
  std::unique_ptr<FrameChannel> channel_;
  ReceivedFrame heard_;
};

class FrameChannelTest : public testing::Test, protected Connected {};

std::vector<std::byte> frame(FrameType type, uint64_t request, uint64_t connection,
                             const std::vector<std::byte>& body) {
  auto bytes = encode_frame_header(frame_of(type, request, connection, body));
  bytes.insert(bytes.end(), body.begin(), body.end());
  return bytes;
}

TEST_F(FrameChannelTest, WhatIsSentComes) {
  ASSERT_TRUE(channel_->send(FrameType::kRead, 3, encode_read({4096, 512})));
  std::vector<std::byte> bytes(kFrameHeaderBytes + 16);
  ASSERT_EQ(::recv(peer_.get(), bytes.data(), bytes.size(), MSG_WAITALL),
            static_cast<ssize_t>(bytes.size()));
  EXPECT_EQ(bytes, frame(FrameType::kRead, 3, 7, encode_read({4096, 512})));
  say(bytes);
  ASSERT_TRUE(hear());
  EXPECT_EQ(heard_.header.type, FrameType::kRead);
  EXPECT_EQ(heard_.header.request, 3U);
  EXPECT_EQ(decode_read(heard_.body)->offset, 4096U);
}

TEST_F(FrameChannelTest, AFrameMayComeByteByByte) {
  const auto bytes = frame(FrameType::kAccept, 1, 7, encode_accept(5));
  std::thread speaker([&] {
    for (const std::byte& byte : bytes) {
      say({&byte, 1});
    }
  });
  EXPECT_TRUE(hear());
  speaker.join();
  EXPECT_EQ(*decode_accept(heard_.body), 5U);
}

TEST_F(FrameChannelTest, AFrameThatIsCutIsAnError) {
  const auto bytes = frame(FrameType::kAccept, 1, 7, encode_accept(5));
  for (size_t length = 0; length < bytes.size(); ++length) {
    Connected other;
    other.say(ConstByteSpan(bytes).first(length));
    other.peer_.reset();
    const auto heard = other.hear();
    ASSERT_FALSE(heard) << length;
    EXPECT_EQ(heard.error().kind, ErrorKind::kUnreachable) << length;
    EXPECT_NE(heard.error().message().find("the peer"), std::string::npos);
  }
}

TEST_F(FrameChannelTest, SilenceIsAnErrorInTime) {
  say(ConstByteSpan(frame(FrameType::kPing, 1, 7, {})).first(10));
  const SteadyTime began = system_clock().steady();
  const auto heard = hear();
  ASSERT_FALSE(heard);
  EXPECT_EQ(heard.error().kind, ErrorKind::kUnreachable);
  EXPECT_GE(system_clock().steady() - began, kSilence);
}

TEST_F(FrameChannelTest, APeerThatTakesNothingIsAnErrorInTime) {
  const std::vector<std::byte> body(kPieceBytes);
  Result<> sent;
  for (int i = 0; i < 100 && sent; ++i) {
    sent = channel_->send(FrameType::kData, 1, body);
  }
  ASSERT_FALSE(sent);
  EXPECT_EQ(sent.error().kind, ErrorKind::kUnreachable);
}

// It goes on to take something before each silence is over, and would keep others waiting for good.
TEST_F(FrameChannelTest, APeerThatTakesAFrameTooSlowlyIsAnErrorInTime) {
  stream_->set_write_limit(3 * kSilence);
  std::atomic<bool> is_over{false};
  std::thread slow([&] {
    std::array<std::byte, 4096> taken{};
    for (int i = 0; i < 4000 && !is_over.load(); ++i) {
      std::this_thread::sleep_for(kSilence / 80);
      (void)::recv(peer_.get(), taken.data(), taken.size(), MSG_DONTWAIT);
    }
  });
  const SteadyTime began = system_clock().steady();
  std::vector<std::byte> much(body_bytes_max(FrameType::kCheckpointList));
  const auto sent = channel_->send(FrameType::kCheckpointList, 1, much);
  const auto taken = system_clock().steady() - began;
  is_over.store(true);
  slow.join();
  EXPECT_GE(taken, 3 * kSilence);
  ASSERT_FALSE(sent);
  EXPECT_EQ(sent.error().kind, ErrorKind::kUnreachable);
  EXPECT_NE(sent.error().message().find("too slowly"), std::string::npos) << sent.error().message();
}

TEST_F(FrameChannelTest, AFrameOfAnotherConnectionIsRefused) {
  say(frame(FrameType::kPing, 1, 8, {}));
  const auto heard = hear();
  ASSERT_FALSE(heard);
  EXPECT_EQ(heard.error().kind, ErrorKind::kCorrupt);
}

TEST_F(FrameChannelTest, ADamagedBodyIsRefused) {
  auto bytes = frame(FrameType::kAccept, 1, 7, encode_accept(5));
  bytes.back() ^= std::byte{1};
  say(bytes);
  const auto heard = hear();
  ASSERT_FALSE(heard);
  EXPECT_EQ(heard.error().kind, ErrorKind::kCorrupt);
}

// The header is judged first: nothing is allocated, or waited for, because of it.
TEST_F(FrameChannelTest, ABodyThatIsTooLongIsRefusedByItsHeader) {
  FrameHeader header = frame_of(FrameType::kPing, 1, 7, {});
  header.body_bytes = 0xffffffff;
  say(encode_frame_header(header));
  const auto heard = hear();
  ASSERT_FALSE(heard);
  EXPECT_EQ(heard.error().kind, ErrorKind::kCorrupt);
  EXPECT_LT(heard_.body.capacity(), 1U << 20U);
}

TEST_F(FrameChannelTest, ShuttingDownWakesWhoWaits) {
  stream_->set_silence(std::chrono::minutes(1));
  std::thread closer([&] {
    std::this_thread::sleep_for(milliseconds(20));
    stream_->shut_down();
  });
  EXPECT_FALSE(hear());
  closer.join();
}

TEST_F(FrameChannelTest, FramesOfSeveralThreadsComeWhole) {
  constexpr int kFrames = 200;
  stream_->set_silence(std::chrono::minutes(1));
  const std::vector<std::byte> body(5000, std::byte{9});
  const auto speak = [&] {
    for (int i = 0; i < kFrames; ++i) {
      EXPECT_TRUE(channel_->send(FrameType::kData, 1, body));
    }
  };
  std::thread one(speak);
  std::thread other(speak);
  SocketStream back(std::move(peer_), "the other end", std::chrono::minutes(1));
  FrameChannel listener(back);
  listener.set_connection(7);
  for (int i = 0; i < 2 * kFrames; ++i) {
    ASSERT_TRUE(listener.receive(heard_));
    EXPECT_EQ(heard_.body, body);
  }
  one.join();
  other.join();
}

}  // namespace
}  // namespace ckpt::test
