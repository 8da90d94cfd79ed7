// SPDX-License-Identifier: Apache-2.0
// A store behind backupd, as a primary sees it: over a real socket, with the daemon's own server.
#include <sys/eventfd.h>
#include <unistd.h>

#include <thread>

#include "backupd/server.h"
#include "common/clock.h"
#include "plugin/remote_store.h"
#include "tests/unit/first_checkpoint.h"

namespace ckpt::test {
namespace {

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
  Result<std::shared_ptr<ServedVolume>> find(const Hello& hello) override {
    const auto until = system_clock().steady() + delay.load();
    while (system_clock().steady() < until) {
      std::this_thread::sleep_for(milliseconds(5));
    }
    if (hello.volume != test_uuid(0x11)) {
      return fail(ErrorKind::kNotFound, "there is no volume " + hello.volume.to_string());
    }
    return volume;
  }

  std::shared_ptr<ServedVolume> volume;
  std::atomic<milliseconds> delay{milliseconds(0)};

 private:
  MemoryDisk disk_;
};

// What read_ranges() and exports hand over, put where it belongs.
class Copy final : public ExportSink {
 public:
  Result<> begin(const CheckpointInfo& info, uint64_t size_bytes) override {
    checkpoint = info;
    content.assign(size_bytes, std::byte{0xee});
    return {};
  }
  Result<> write(uint64_t offset, ConstByteSpan data) override {
    parts.push_back({offset, data.size()});
    if (refuse) {
      return fail(ErrorKind::kIo, "no room");
    }
    copy_bytes(data, ByteSpan(content).subspan(offset));
    return {};
  }
  Result<> zero(ByteRange range) override {
    parts.push_back(range);
    std::fill_n(content.begin() + static_cast<ptrdiff_t>(range.offset), range.length, std::byte{0});
    return {};
  }

  bool refuse = false;
  CheckpointInfo checkpoint;
  Content content = Content(kPeerDiskBytes, std::byte{0xee});
  std::vector<ByteRange> parts;
};

std::string make_folder() {
  std::string name = "/tmp/ckpt-remote-XXXXXX";
  return ::mkdtemp(name.data());
}

class RemoteStoreTest : public testing::Test, protected FirstCheckpoint {
 protected:
  RemoteStoreTest() { start_server(); }
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
    auto listeners = listen_at(address_, Reach::kMachine);
    ASSERT_DONE(listeners);
    server_->add_listeners(std::move(*listeners));
    thread_ = std::thread([this] { server_->run(stop_fd_.get()); });
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

  MovingShelf shelf_;
  const std::string folder_ = make_folder();
  const Address address_{folder_ + "/s", "", ""};
  UniqueFd stop_fd_;
  std::unique_ptr<Server> server_;
  std::thread thread_;
  RemoteStore remote_{options(), system_clock()};
};

TEST_F(RemoteStoreTest, ShipsConfirmsAndReads) {
  EXPECT_KIND(kUnreachable, remote_.check_link());
  make_checkpoint();
  EXPECT_TRUE(remote_.check_link());
  Content now(kPeerDiskBytes);
  ASSERT_DONE(remote_.read_confirmed(0, now));
  EXPECT_EQ(now, truth());
  const auto kept = remote_.checkpoints();
  ASSERT_DONE(kept);
  ASSERT_EQ(kept->size(), 1U);
  EXPECT_EQ(kept->front().name, "cp1");
  const auto first = remote_.next_confirmed_data(0);
  ASSERT_DONE(first);
  EXPECT_EQ((*first)->offset, 0U);
  EXPECT_EQ(remote_.status().confirmed->id.number.value, 1U);
  EXPECT_EQ(remote_.status().state, "connected");
}

TEST_F(RemoteStoreTest, HandsOverRangesInTheirOrder) {
  make_checkpoint();
  Copy copy;
  const std::vector<ByteRange> ranges{{40960, 8192}, {0, 4096}, {100, 50}};
  ASSERT_DONE(remote_.read_ranges(ranges, copy));
  const Content all = truth();
  for (const ByteRange& range : ranges) {
    const auto at = static_cast<ptrdiff_t>(range.offset);
    const auto end = static_cast<ptrdiff_t>(range.end());
    EXPECT_TRUE(std::equal(all.begin() + at, all.begin() + end, copy.content.begin() + at));
  }
  EXPECT_EQ(copy.content[4096], std::byte{0xee});
  EXPECT_EQ(copy.parts.front().offset, 40960U);
  EXPECT_EQ(copy.parts.back(), (ByteRange{100, 50}));
  EXPECT_KIND(kInvalid, remote_.read_ranges(std::vector<ByteRange>{{0, kPeerDiskBytes + 1}}, copy));
}

TEST_F(RemoteStoreTest, AnErrorOfWhoTakesTheContentIsPassedOn) {
  make_checkpoint();
  Copy copy;
  copy.refuse = true;
  const auto taken = remote_.read_ranges(std::vector<ByteRange>{{0, 4096}}, copy);
  EXPECT_KIND(kIo, taken);
  EXPECT_EQ(copy.parts.size(), 1U);
  copy.refuse = false;
  EXPECT_TRUE(remote_.read_ranges(std::vector<ByteRange>{{0, 4096}}, copy));
}

TEST_F(RemoteStoreTest, ExportsAndRollsBack) {
  make_checkpoint();
  Copy copy;
  ASSERT_DONE(remote_.export_checkpoint(std::nullopt, copy));
  EXPECT_EQ(copy.content, truth());
  EXPECT_EQ(copy.checkpoint.name, "cp1");
  EXPECT_KIND(kNotFound, remote_.export_checkpoint(Epoch{9}, copy));
  ASSERT_DONE(remote_.roll_back({peer_.timeline, {1}}, test_uuid(0x33)));
  EXPECT_EQ(shelf_.volume->store().checkpoints()->back().id.timeline, test_uuid(0x33));
}

TEST_F(RemoteStoreTest, ARefusedBatchEndsTheSessionAtTheLatestWithTheConfirmation) {
  ASSERT_DONE(begin());
  EncodedBatch other = batch(1, {data(0, 1)});
  other.header.incarnation = 99;
  (void)remote_.receive(other);
  EXPECT_FALSE(remote_.confirm(confirmation(1)));
  EXPECT_FALSE(remote_.check_link());
  EXPECT_TRUE(shelf_.volume->store().checkpoints()->empty());
  chains_.clear();
  make_checkpoint();
}

TEST_F(RemoteStoreTest, ARefusedBatchIsNoticedWithoutAnother) {
  ASSERT_DONE(begin());
  EncodedBatch other = batch(1, {data(0, 1)});
  other.header.incarnation = 99;
  (void)remote_.receive(other);
  remote_.look_after();
  EXPECT_KIND(kInvalid, remote_.check_link());
}

TEST_F(RemoteStoreTest, AConnectionThatIsGoneIsNoticedAndMadeAnew) {
  make_checkpoint();
  stop_server();
  remote_.look_after();
  EXPECT_KIND(kUnreachable, remote_.check_link());
  EXPECT_EQ(remote_.status().state, "detached");
  EXPECT_KIND(kUnreachable, remote_.begin_session());
  start_server();
  Content now(kPeerDiskBytes);
  ASSERT_DONE(remote_.read_confirmed(0, now));
  EXPECT_EQ(now, truth());
  ASSERT_DONE(begin());
  EXPECT_TRUE(remote_.check_link());
}

TEST_F(RemoteStoreTest, AConnectionThatWasClosedIsSeenWithoutAsking) {
  make_checkpoint();
  stop_server();
  EXPECT_KIND(kUnreachable, remote_.check_link());
}

TEST_F(RemoteStoreTest, AConnectionThatNobodyKnewToBeGoneIsMadeAnewAtOnce) {
  make_checkpoint();
  Content now(kPeerDiskBytes);
  ASSERT_DONE(remote_.read_confirmed(0, now));
  stop_server();
  start_server();
  ASSERT_DONE(remote_.read_confirmed(0, now));
  stop_server();
  start_server();
  Copy copy;
  ASSERT_DONE(remote_.read_ranges(std::vector<ByteRange>{{0, 4096}}, copy));
  ASSERT_DONE(remote_.begin_session());
}

TEST_F(RemoteStoreTest, AConfirmationThatCouldNotBeSentIsVoid) {
  ASSERT_DONE(begin());
  ASSERT_DONE(remote_.receive(batch(1, {data(0, 1)})));
  stop_server();
  EXPECT_KIND(kVoid, remote_.confirm(confirmation(1)));
}

TEST_F(RemoteStoreTest, AnIdleConnectionLivesOn) {
  make_checkpoint();
  const SteadyTime end = system_clock().steady() + milliseconds(1500);  // more than the silence
  while (system_clock().steady() < end) {
    remote_.look_after();
  }
  EXPECT_TRUE(remote_.check_link());
  ASSERT_DONE(remote_.confirm([&] {
    Confirmation next = peer_.confirmation(2);
    const auto last = shelf_.volume->store().checkpoints()->back();
    next.checkpoint.parent = last.id;
    next.checkpoint.digest = checkpoint_digest(last.digest, peer_.timeline, {2}, {});
    return next;
  }()));
}

TEST_F(RemoteStoreTest, ASlowAnswerIsWaitedFor) {
  shelf_.delay = milliseconds(1500);  // more than the silence; `working` comes in between
  RemoteOptions patient = options();
  patient.patience = milliseconds(600);
  RemoteStore remote(patient, system_clock());
  EXPECT_TRUE(remote.begin_session());
}

TEST_F(RemoteStoreTest, WhoDoesNotAnswerIsGivenUp) {
  make_checkpoint();
  // Nobody accepts from its queue any more.
  stop_server();
  (void)::unlink(address_.path.c_str());
  const auto silent = listen_at(address_, Reach::kMachine);
  ASSERT_DONE(silent);
  const SteadyTime begin = system_clock().steady();
  EXPECT_KIND(kUnreachable, remote_.begin_session());
  EXPECT_LT(system_clock().steady() - begin, std::chrono::seconds(5));
}

TEST_F(RemoteStoreTest, WhoWaitsReturnsWhenItStops) {
  stop_server();
  const auto silent = listen_at(address_, Reach::kMachine);
  ASSERT_DONE(silent);
  RemoteOptions patient = options();
  patient.patience = std::chrono::seconds(60);
  RemoteStore remote(patient, system_clock());
  std::thread stopper([&] {
    std::this_thread::sleep_for(milliseconds(100));
    remote.stop();
  });
  EXPECT_KIND(kUnreachable, remote.begin_session());
  stopper.join();
  EXPECT_KIND(kUnreachable, remote.begin_session());
}

TEST_F(RemoteStoreTest, AnotherVolumeIsToldSo) {
  RemoteOptions other = options();
  other.volume = test_uuid(0x12);
  RemoteStore remote(other, system_clock());
  EXPECT_KIND(kNotFound, remote.checkpoints());
}

// A back-up that answers as it is told to.
class LyingBackUp {
 public:
  explicit LyingBackUp(const Address& address) {
    auto listeners = listen_at(address, Reach::kMachine);
    EXPECT_TRUE(listeners);
    listener_ = std::move(listeners->front());
  }
  // Takes one connection, welcomes it, and answers each request with what the script says.
  void serve(std::vector<std::pair<FrameType, std::vector<std::byte>>> script) {
    thread_ = std::thread([this, script = std::move(script)] {
      auto accepted = accept_socket(listener_.get());
      while (!accepted) {
        std::this_thread::sleep_for(milliseconds(5));
        accepted = accept_socket(listener_.get());
      }
      SocketStream stream(std::move(accepted->socket), "client", milliseconds(2000));
      FrameChannel channel(stream);
      ReceivedFrame frame;
      ASSERT_DONE(channel.receive(frame));
      Welcome welcome{.silence = milliseconds(600),
                      .connection = 5,
                      .size_bytes = kPeerDiskBytes,
                      .window_bytes = 1 << 20,
                      .software = ""};
      ASSERT_DONE(channel.send(FrameType::kWelcome, 1, encode_welcome(welcome)));
      channel.set_connection(5);
      ASSERT_DONE(channel.receive(frame));
      for (const auto& [type, body] : script) {
        (void)channel.send(type, frame.header.request, body);
      }
      (void)channel.receive(frame);  // until the client has gone
    });
  }
  ~LyingBackUp() { thread_.join(); }
  LyingBackUp(const LyingBackUp&) = delete;
  LyingBackUp& operator=(const LyingBackUp&) = delete;

 private:
  UniqueFd listener_;
  std::thread thread_;
};

TEST_F(RemoteStoreTest, OnlyWhatWasAskedForIsTaken) {
  const Content block(4096, std::byte{7});
  const std::vector<std::vector<std::pair<FrameType, std::vector<std::byte>>>> lies{
      {{FrameType::kContent, encode_content({8192, block})}},  // elsewhere
      {{FrameType::kContent, encode_content({0, block})},
       {FrameType::kContent, encode_content({0, block})}},  // twice
      {{FrameType::kHole, encode_hole({0, 65536})}},        // more
      {{FrameType::kDone, {}}},                             // nothing
      {{FrameType::kGreeting, encode_greeting({})}},        // something else
  };
  stop_server();
  for (const auto& lie : lies) {
    (void)::unlink(address_.path.c_str());
    LyingBackUp liar(address_);
    liar.serve(lie);
    RemoteStore remote(options(), system_clock());
    Copy copy;
    EXPECT_KIND(kCorrupt, remote.read_ranges(std::vector<ByteRange>{{0, 8192}}, copy));
    EXPECT_EQ(copy.content[8192], std::byte{0xee});
  }
}

TEST_F(RemoteStoreTest, NoErrorOfTheirsPassesForOneOfOurs) {
  stop_server();
  for (const ErrorKind kind : {ErrorKind::kVoid, ErrorKind::kUnreadable, ErrorKind::kUnreachable}) {
    (void)::unlink(address_.path.c_str());
    LyingBackUp liar(address_);
    liar.serve({{FrameType::kFailed, encode_failed({kind, 0, "a lie"})}});
    RemoteStore remote(options(), system_clock());
    EXPECT_KIND(kIo, remote.begin_session());
  }
}

}  // namespace
}  // namespace ckpt::test
