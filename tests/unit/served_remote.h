// SPDX-License-Identifier: Apache-2.0
// A server with one volume, whose store is in memory, and a RemoteStore that talks to it over real
// sockets.
#pragma once

#include <netinet/in.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <thread>

#include "backupd/server.h"
#include "common/clock.h"
#include "common/remote_store.h"
#include "tests/unit/first_checkpoint.h"

namespace ckpt::test {

using std::chrono::milliseconds;

// A store that can be made to fail, or to take its time.
class MovingShelf final : public VolumeShelf {
 public:
  MovingShelf() { open(); }
  void open() {
    StorePeer peer(disk_);
    StoreOptions options = peer.options();
    options.clock = &system_clock();
    auto store = Store::open(disk_.root(), options);
    ASSERT_DONE(store);
    volume = std::make_shared<ServedVolume>(std::move(*store), kPeerDiskBytes);
  }
  Result<std::shared_ptr<ServedVolume>> find(const Hello& hello, bool) override {
    const auto until = system_clock().steady() + delay.load();
    while (system_clock().steady() < until) {
      std::this_thread::sleep_for(milliseconds(5));
    }
    if (hello.volume != test_uuid(0x11)) {
      return fail(ErrorKind::kNotFound, "there is no volume " + hello.volume.to_string());
    }
    return volume;
  }
  std::vector<NamedVolume> volumes() override {
    return {{test_uuid(0x11), volume->size_bytes(), volume->name()}};
  }
  Result<> set_name(const Uuid&, const std::string& name) override {
    return volume->set_name(name, [this]() -> Result<> {
      return is_full.load() ? Result<>(fail(ErrorKind::kNoSpace, "name")) : Result<>();
    });
  }
  Result<> release(const Uuid&, bool force) override { return volume->retire(force); }
  void take_back(const Uuid&) override { open(); }

  std::shared_ptr<ServedVolume> volume;
  std::atomic<milliseconds> delay{milliseconds(0)};
  std::atomic<bool> is_full{false};

 private:
  MemoryDisk disk_;
};

inline std::string make_folder() {
  std::string name = "/tmp/ckpt-remote-XXXXXX";
  return ::mkdtemp(name.data());
}

class RemoteStoreTest : public testing::Test, protected FirstCheckpoint {
 protected:
  RemoteStoreTest() { start_server(); }
  explicit RemoteStoreTest(Guard guard) : guard_(std::move(guard)) { start_server(); }
  ~RemoteStoreTest() override {
    stop_server();
    (void)::unlink(address_.path.c_str());
    (void)::rmdir(folder_.c_str());
  }
  void start_server() {
    stop_fd_.reset(::eventfd(0, EFD_CLOEXEC));
    server_ = std::make_unique<Server>(
        shelf_,
        ServerOptions{.silence = milliseconds(600), .software = "test", .log = [](auto&) {}});
    server_->set_guard(guard_);
    for (const Address& address : {address_, Address{"", "127.0.0.1", "0"}}) {
      auto listeners = listen_at(address, Reach::kMachine);
      ASSERT_DONE(listeners);
      port_ = port_of(listeners->front().get());
      server_->add_listeners(std::move(*listeners));
    }
    thread_ = std::thread([this] { server_->run(stop_fd_.get(), -1, {}); });
  }
  void stop_server() {
    if (thread_.joinable()) {
      const uint64_t one = 1;
      ASSERT_EQ(::write(stop_fd_.get(), &one, sizeof(one)), 8);
      thread_.join();
      server_.reset();
    }
  }
  [[nodiscard]] RemoteOptions options() const {
    RemoteOptions options;
    options.address = address_;
    options.volume = test_uuid(0x11);
    options.size_bytes = kPeerDiskBytes;
    options.patience = milliseconds(400);
    return options;
  }
  Result<> begin() {
    CKPT_TRY(remote_.begin_session());
    return remote_.accept(peer_.incarnation);
  }
  void make_checkpoint() {
    ASSERT_DONE(begin());
    for (uint64_t i = 0; i < 5; ++i) {
      ASSERT_DONE(remote_.receive(batch(1, {data(3 * i, 2), zeroes(3 * i + 2, 1)})));
    }
    ASSERT_DONE(remote_.confirm(confirmation(1)));
  }
  Content truth() {
    Content now(kPeerDiskBytes);
    EXPECT_TRUE(shelf_.volume->store().read_confirmed(0, now));
    return now;
  }

  static uint16_t port_of(int listener) {
    sockaddr_in at{};
    socklen_t length = sizeof(at);
    EXPECT_EQ(::getsockname(listener, static_cast<sockaddr*>(static_cast<void*>(&at)), &length), 0);
    return ntohs(at.sin_port);
  }

  MovingShelf shelf_;
  Guard guard_;
  uint16_t port_ = 0;  // of the last listener
  const std::string folder_ = make_folder();
  const Address address_{folder_ + "/s", "", ""};
  UniqueFd stop_fd_;
  std::unique_ptr<Server> server_;
  std::thread thread_;
  RemoteStore remote_{options(), system_clock()};
};

}  // namespace ckpt::test
