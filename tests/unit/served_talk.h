// SPDX-License-Identifier: Apache-2.0
// A client that talks to a connection of the server, over a real socket and a real store.
#pragma once

#include <sys/socket.h>

#include <thread>

#include "backupd/connection.h"
#include "common/clock.h"
#include "common/socket_stream.h"
#include "tests/unit/first_checkpoint.h"
#include "tests/unit/versioned_frame.h"

namespace ckpt::test {

// One volume, whose store is in memory.
class OneVolume : public VolumeShelf {
 public:
  OneVolume() {
    StorePeer peer(disk_);
    StoreOptions options = peer.options();
    options.clock = &system_clock();
    auto store = Store::open(disk_.root(), options);
    EXPECT_TRUE(store);
    volume = std::make_shared<ServedVolume>(std::move(*store), kPeerDiskBytes);
  }
  Result<std::shared_ptr<ServedVolume>> find(const Hello& hello, bool) override {
    if (hello.volume != test_uuid(0x11)) {
      return fail(ErrorKind::kNotFound, "there is no volume " + hello.volume.to_string());
    }
    return volume;
  }
  std::vector<NamedVolume> volumes() override {
    return {{test_uuid(0x11), volume->size_bytes(), volume->name()}};
  }
  Result<> set_name(const Uuid&, const std::string& name) override {
    return volume->set_name(name, [] { return Result<>(); });
  }
  Result<> release(const Uuid& one, bool force) override {
    if (one != test_uuid(0x11)) {
      return fail(ErrorKind::kNotFound, "there is no volume " + one.to_string());
    }
    CKPT_TRY(volume->retire(force));
    is_released = true;
    ++releases;
    return {};
  }
  void take_back(const Uuid&) override { is_released = false; }

  std::shared_ptr<ServedVolume> volume;
  std::atomic<bool> is_released{false};
  std::atomic<int> releases{0};

 private:
  MemoryDisk disk_;
};

// Whom the client has proved to be, and the list by which it is judged.
struct Admission {
  std::string identity{};
  std::shared_ptr<const AccessList> access{};
  bool is_local = false;
};

// A client, and the thread that serves it.
class Talk {
 public:
  Talk(VolumeShelf& shelf, uint64_t number, const Admission& admission = {}) {
    int pair[2] = {-1, -1};
    EXPECT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
    client_ = std::make_unique<SocketStream>(UniqueFd(pair[0]), "the server", kPatience);
    channel_ = std::make_unique<FrameChannel>(*client_);
    server_ = std::thread([this, &shelf, number, admission, fd = pair[1]] {
      SocketStream stream(UniqueFd(fd), "the client", kPatience);
      Connection connection(stream, shelf,
                            {.number = number,
                             .silence = kPatience,
                             .window_bytes = 1U << 24U,
                             .software = "ckpt",
                             .peer = "the client",
                             .access = admission.access,
                             .is_local = admission.is_local});
      connection.set_identity(admission.identity);
      auto done = connection.greet();
      while (done) {
        done = connection.step();
      }
      ended_ = done;
    });
  }
  ~Talk() { (void)end(); }
  Talk(const Talk&) = delete;
  Talk& operator=(const Talk&) = delete;

  // Why it ended, at the server.
  Result<> end() {
    client_->shut_down();
    if (server_.joinable()) {
      server_.join();
    }
    return ended_;
  }
  void send(FrameType type, const std::vector<std::byte>& body) {
    (void)channel_->send(type, ++request_, body);
  }
  // One that says it is that request, whichever is due.
  void send_as(uint64_t request, FrameType type, const std::vector<std::byte>& body) {
    (void)channel_->send(type, request, body);
  }
  [[nodiscard]] uint64_t last_request() const { return request_; }
  // One of another version of the protocol.
  void send_of_version(uint16_t version, FrameType type, const std::vector<std::byte>& body) {
    (void)client_->write(frame_of_version(version, type, ++request_, body), {});
  }
  // A header, and no body.
  void announce(FrameType type, uint32_t body_bytes) {
    FrameHeader header = frame_of(type, ++request_, channel_->connection(), {});
    header.body_bytes = body_bytes;
    (void)client_->write(encode_frame_header(header), {});
  }
  // A frame of which one bit was flipped on its way, that one, from its beginning.
  void send_damaged(FrameType type, const std::vector<std::byte>& body, size_t bit) {
    const auto header =
        encode_frame_header(frame_of(type, ++request_, channel_->connection(), body));
    std::vector<std::byte> bytes(header.begin(), header.end());
    bytes.insert(bytes.end(), body.begin(), body.end());
    bytes[bit / 8] ^= static_cast<std::byte>(1U << (bit % 8));
    (void)client_->write(bytes, {});
  }
  // The next answer: of that type, or the error that it says.
  Result<std::vector<std::byte>> hear(FrameType type) {
    CKPT_TRY(channel_->receive(heard_));
    if (heard_.header.type == FrameType::kFailed) {
      CKPT_ASSIGN(const Error error, decode_failed(heard_.body));
      return Unexpected(error);
    }
    EXPECT_EQ(heard_.header.type, type);
    return heard_.body;
  }
  Result<std::vector<std::byte>> ask(FrameType type, const std::vector<std::byte>& body,
                                     FrameType answer = FrameType::kDone) {
    send(type, body);
    return hear(answer);
  }
  // The next piece of an export, put where it belongs. False: that was all.
  bool hear_content(Content& copy) {
    EXPECT_TRUE(channel_->receive(heard_));
    if (heard_.header.type == FrameType::kContent) {
      const auto content = decode_content(heard_.body);
      copy_bytes(content->data, ByteSpan(copy).subspan(content->offset));
    } else if (heard_.header.type == FrameType::kHole) {
      const auto range = decode_hole(heard_.body);
      std::fill_n(copy.begin() + static_cast<ptrdiff_t>(range->offset), range->length,
                  std::byte{0});
    } else {
      EXPECT_EQ(heard_.header.type, FrameType::kDone);
      return false;
    }
    return true;
  }
  Result<Welcome> hello(Role role, const Uuid& volume = test_uuid(0x11)) {
    Hello said{.features = features,
               .volume = volume,
               .size_bytes = kPeerDiskBytes,
               .role = role,
               .software = ""};
    send(FrameType::kHello, encode_hello(said));
    CKPT_ASSIGN(const auto body, hear(FrameType::kWelcome));
    CKPT_ASSIGN(const Welcome welcome, decode_welcome(body));
    channel_->set_connection(welcome.connection);
    return welcome;
  }
  // One that is about no volume.
  Result<Welcome> visit() {
    send(FrameType::kHello, encode_hello({.volume = {}, .role = Role::kVisitor, .software = ""}));
    CKPT_ASSIGN(const auto body, hear(FrameType::kWelcome));
    CKPT_ASSIGN(const Welcome welcome, decode_welcome(body));
    channel_->set_connection(welcome.connection);
    return welcome;
  }
  Result<VolumeList> volumes(const VolumesRequest& asked = {}) {
    CKPT_ASSIGN(const auto body,
                ask(FrameType::kVolumes, encode_volumes(asked), FrameType::kVolumeList));
    return decode_volume_list(body);
  }
  Result<> begin() {
    CKPT_TRY(hello(Role::kSession));
    CKPT_TRY(ask(FrameType::kBeginSession, {}, FrameType::kGreeting));
    CKPT_TRY(ask(FrameType::kAccept, encode_accept(7)));
    return {};
  }

  uint64_t features = kFeatures;  // that it offers

 private:
  static constexpr std::chrono::milliseconds kPatience{5000};

  std::unique_ptr<SocketStream> client_;
  std::unique_ptr<FrameChannel> channel_;
  uint64_t request_ = 0;
  ReceivedFrame heard_;
  std::thread server_;
  Result<> ended_;
};

}  // namespace ckpt::test
