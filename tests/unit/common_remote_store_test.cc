// SPDX-License-Identifier: Apache-2.0
// A store behind backupd, as a primary sees it: over a real socket, with the daemon's own server.
#include <sys/stat.h>

#include <fstream>

#include "common/checksum.h"
#include "plugin/remote_volumes.h"
#include "tests/unit/served_remote.h"

namespace ckpt::test {
namespace {

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

TEST_F(RemoteStoreTest, TellsTheNameWithTheSession) {
  RemoteOptions named = options();
  named.name = "accounts";
  RemoteStore store(named, system_clock());
  ASSERT_DONE(store.checkpoints());
  EXPECT_EQ(shelf_.volume->name(), "") << "a reader does not";
  ASSERT_DONE(store.begin_session());
  EXPECT_EQ(shelf_.volume->name(), "") << "it may yet be found to have diverged";
  ASSERT_DONE(store.accept(peer_.incarnation));
  EXPECT_EQ(shelf_.volume->name(), "accounts");
  const auto found = list_remote_volumes(named, "accounts");
  ASSERT_DONE(found);
  ASSERT_EQ(found->size(), 1U);
  EXPECT_EQ(found->front().volume, test_uuid(0x11));
  EXPECT_TRUE(list_remote_volumes(named, "other")->empty());
}

TEST_F(RemoteStoreTest, ANameThatCannotBeKeptIsNoReasonNotToShip) {
  shelf_.is_full = true;
  RemoteOptions named = options();
  named.name = "accounts";
  RemoteStore store(named, system_clock());
  ASSERT_DONE(store.begin_session());
  ASSERT_DONE(store.accept(peer_.incarnation));
  EXPECT_EQ(shelf_.volume->name(), "");
}

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

TEST_F(RemoteStoreTest, DigestsAreTheStoresOwn) {
  make_checkpoint();
  const uint64_t blocks = block_count(kPeerDiskBytes);
  const auto digests = remote_.digests({{1, blocks}, kPeerDiskBytes, 9});
  ASSERT_DONE(digests);
  EXPECT_EQ(*digests, *shelf_.volume->store().digests({{1, blocks}, kPeerDiskBytes, 9}));
  EXPECT_EQ(digests->size(), blocks - 1);
  const Content all = truth();
  EXPECT_EQ(digests->front(), digest_of(ConstByteSpan(all).subspan(kBlockBytes, kBlockBytes), 9));
  EXPECT_KIND(kInvalid, remote_.digests({{0, blocks + 1}, kPeerDiskBytes, 9}));
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
  for (const ErrorKind kind : {ErrorKind::kVoid, ErrorKind::kUnreadable}) {
    (void)::unlink(address_.path.c_str());
    LyingBackUp liar(address_);
    liar.serve({{FrameType::kFailed, encode_failed({kind, 0, "a lie"})}});
    RemoteStore remote(options(), system_clock());
    EXPECT_KIND(kIo, remote.begin_session());
  }
}

// A frame of ours came damaged there, say.
TEST_F(RemoteStoreTest, AConnectionThatTheyGiveUpIsAsGoodAsCut) {
  stop_server();
  (void)::unlink(address_.path.c_str());
  LyingBackUp liar(address_);
  liar.serve({{FrameType::kFailed, encode_failed({ErrorKind::kUnreachable, 0, "damaged"})}});
  RemoteStore remote(options(), system_clock());
  EXPECT_KIND(kUnreachable, remote.begin_session());
}

// ---- behind TLS, with keys

class Keys {
 public:
  Keys() { write({{"alice", "a1"}, {"bob", "b2"}}, path()); }
  ~Keys() { (void)std::system(("rm -r " + folder_).c_str()); }  // NOLINT(cert-env33-c)
  Keys(const Keys&) = delete;
  Keys& operator=(const Keys&) = delete;
  // A client's file; a digit pair that is repeated is the key.
  std::string of(const std::string& user, const std::string& digits) const {
    const std::string file = folder_ + "/client.psk";
    write({{user, digits}}, file);
    return file;
  }
  [[nodiscard]] Guard guard() const {
    auto loaded = TlsCredentials::load({.psk = path()}, TlsSide::kServer);
    EXPECT_TRUE(loaded) << loaded.error().message();
    return {loaded ? *loaded : nullptr, nullptr};
  }

 private:
  [[nodiscard]] std::string path() const { return folder_ + "/server.psk"; }
  static void write(const std::vector<std::pair<std::string, std::string>>& users,
                    const std::string& file) {
    std::ofstream out(file);
    for (const auto& [user, digits] : users) {
      out << user << ":";
      for (int i = 0; i < 16; ++i) {
        out << digits;
      }
      out << "\n";
    }
    EXPECT_EQ(::chmod(file.c_str(), 0600), 0);
  }
  const std::string folder_ = make_folder();
};

class RemoteStoreTlsTest : protected Keys, public RemoteStoreTest {
 protected:
  RemoteStoreTlsTest() : RemoteStoreTest(guard()) {}
  RemoteOptions tls_options(const std::string& user, const std::string& digits) {
    RemoteOptions chosen = options();
    chosen.address = {"", "127.0.0.1", std::to_string(port_)};
    chosen.tls.psk = of(user, digits);
    chosen.patience = milliseconds(2000);
    return chosen;
  }
};

TEST_F(RemoteStoreTlsTest, ShipsConfirmsAndReads) {
  RemoteStore remote(tls_options("alice", "a1"), system_clock());
  ASSERT_DONE(remote.begin_session());
  ASSERT_DONE(remote.accept(peer_.incarnation));
  ASSERT_DONE(remote.receive(batch(1, {data(0, 2), data(9, 1)})));
  ASSERT_DONE(remote.confirm(confirmation(1)));
  Content now(kPeerDiskBytes);
  ASSERT_DONE(remote.read_confirmed(0, now));
  EXPECT_EQ(now, truth());
  Copy copy;
  ASSERT_DONE(remote.export_checkpoint(std::nullopt, copy));
  EXPECT_EQ(copy.content, truth());
}

// Both connections are used at once. No status is asked for: the disk in memory is not made for it.
TEST_F(RemoteStoreTlsTest, TwoAskAtOnce) {
  RemoteStore remote(tls_options("alice", "a1"), system_clock());
  ASSERT_DONE(remote.begin_session());
  ASSERT_DONE(remote.accept(peer_.incarnation));
  std::thread reader([&] {
    for (int i = 0; i < 50; ++i) {
      EXPECT_TRUE(remote.checkpoints());
    }
  });
  for (uint64_t i = 0; i < 40; ++i) {
    EXPECT_TRUE(remote.receive(batch(1, {data(i % 8, 1)})));
  }
  EXPECT_TRUE(remote.confirm(confirmation(1)));
  reader.join();
}

TEST_F(RemoteStoreTlsTest, AWrongKeyIsDeniedAndARightOneIsReadWithoutARestart) {
  for (const char* user : {"alice", "nobody"}) {
    RemoteStore remote(tls_options(user, "b2"), system_clock());
    const auto begun = remote.begin_session();
    EXPECT_KIND(kDenied, begun);
    EXPECT_KIND(kDenied, remote.check_link());
    EXPECT_EQ(remote.status().state, "failed");
    EXPECT_NE(remote.status().error.find("127.0.0.1"), std::string::npos);
    (void)of("alice", "a1");
    EXPECT_TRUE(remote.begin_session());
  }
}

TEST_F(RemoteStoreTlsTest, WhoDoesNotKnowThatItIsTlsIsTold) {
  RemoteOptions plain = tls_options("alice", "a1");
  plain.tls = {};
  RemoteStore remote(plain, system_clock());
  const auto begun = remote.begin_session();
  EXPECT_KIND(kUnreachable, begun);
  EXPECT_NE(begun.error().message().find("tls-certificates"), std::string::npos);
  RemoteStore local(options(), system_clock());
  EXPECT_TRUE(local.begin_session()) << "a Unix socket has none";
}

TEST_F(RemoteStoreTlsTest, WhoGreetsReturnsWhenItStops) {
  const auto silent = listen_at({"", "127.0.0.1", "0"}, Reach::kMachine);
  ASSERT_DONE(silent);
  RemoteOptions patient = tls_options("alice", "a1");
  patient.address.port = std::to_string(port_of(silent->front().get()));
  patient.patience = milliseconds(60000);
  RemoteStore remote(patient, system_clock());
  std::thread waiting([&] { EXPECT_KIND(kUnreachable, remote.begin_session()); });
  std::this_thread::sleep_for(milliseconds(50));
  remote.stop();
  waiting.join();
}

}  // namespace
}  // namespace ckpt::test
