// SPDX-License-Identifier: Apache-2.0
// TLS over a real socket: who is believed, who is turned away, and that all comes as it was sent.
// Certificates and keys are made by certtool(1) and psktool(1).
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <thread>

#include "common/tls_stream.h"

namespace ckpt::test {
namespace {

using std::chrono::milliseconds;
namespace fs = std::filesystem;

// An authority, a server of that name, and a client.
class Authority {
 public:
  explicit Authority(const std::string& folder) : path(folder) {
    fs::create_directories(path);
    write("ca.info", "cn = test\nca\ncert_signing_key\nexpiration_days = 2\n");
    write("server.info",
          "cn = host.test\ndns_name = host.test\ntls_www_server\nsigning_key\n"
          "expiration_days = 2\n");
    write("client.info", "cn = the-client\ntls_www_client\nsigning_key\nexpiration_days = 2\n");
    run("certtool --generate-privkey --key-type ecdsa --outfile ca-key.pem");
    run("certtool --generate-self-signed --load-privkey ca-key.pem --template ca.info "
        "--outfile ca-cert.pem");
    for (const char* name : {"server", "client"}) {
      const std::string who(name);
      run("certtool --generate-privkey --key-type ecdsa --outfile " + who + "-key.pem");
      run("certtool --generate-certificate --load-privkey " + who + "-key.pem --template " + who +
          ".info --load-ca-certificate ca-cert.pem --load-ca-privkey ca-key.pem --outfile " + who +
          "-cert.pem");
    }
  }
  void write(const std::string& name, const std::string& content) const {
    std::ofstream(path + "/" + name) << content;
  }
  void run(const std::string& command) const {
    const std::string whole = "cd " + path + " && umask 077 && " + command + " > log 2>&1";
    ASSERT_EQ(std::system(whole.c_str()), 0) << command;  // NOLINT(cert-env33-c): a test's tools
  }
  [[nodiscard]] std::shared_ptr<const TlsCredentials> load(TlsSide side,
                                                           bool verify_peer = true) const {
    auto loaded = TlsCredentials::load({.certificates = path, .verify_peer = verify_peer}, side);
    EXPECT_TRUE(loaded) << loaded.error().message();
    return loaded ? *loaded : nullptr;
  }
  const std::string path;
};

// Both ends of a connection.
struct Pair {
  Pair(std::shared_ptr<const TlsCredentials> client_credentials,
       std::shared_ptr<const TlsCredentials> server_credentials) {
    int fds[2] = {-1, -1};
    EXPECT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fds), 0);
    const milliseconds silence(2000);
    client = std::make_unique<TlsStream>(UniqueFd(fds[0]), "the server", silence,
                                         std::move(client_credentials));
    server = std::make_unique<TlsStream>(UniqueFd(fds[1]), "the client", silence,
                                         std::move(server_credentials));
  }
  // What each of them made of the other. A client learns with its first read that it is refused.
  void shake_hands(const std::string& host) {
    std::thread other([this] {
      by_server = server->shake_hands("");
      if (by_server) {
        const std::array<std::byte, 1> hello{std::byte{7}};
        by_server = server->write(hello, {});
      } else {
        server->shut_down();
      }
    });
    by_client = client->shake_hands(host);
    if (by_client) {
      std::array<std::byte, 1> hello{};
      by_client = client->read(hello);
    } else {
      client->shut_down();
    }
    other.join();
  }
  std::unique_ptr<TlsStream> client;
  std::unique_ptr<TlsStream> server;
  Result<> by_client;
  Result<> by_server;
};

class TlsTest : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    std::string name = fs::temp_directory_path().string() + "/ckpt-tls-XXXXXX";
    folder_ = ::mkdtemp(name.data());
    ours_ = std::make_unique<Authority>(folder_ + "/ours");
    theirs_ = std::make_unique<Authority>(folder_ + "/theirs");
    ours_->run("psktool -u alice -p keys.psk");
    ours_->run("psktool -u bob -p bob.psk && cp bob.psk other.psk");
    ours_->run("psktool -u alice -p wrong.psk");
  }
  static void TearDownTestSuite() {
    ours_.reset();
    theirs_.reset();
    fs::remove_all(folder_);
  }
  static std::shared_ptr<const TlsCredentials> keys(const std::string& file, TlsSide side) {
    auto loaded = TlsCredentials::load({.psk = ours_->path + "/" + file}, side);
    EXPECT_TRUE(loaded) << loaded.error().message();
    return loaded ? *loaded : nullptr;
  }
  static std::string refusal(const TlsOptions& options, TlsSide side) {
    const auto loaded = TlsCredentials::load(options, side);
    return loaded ? "taken" : loaded.error().message();
  }

  static std::string folder_;
  static std::unique_ptr<Authority> ours_;
  static std::unique_ptr<Authority> theirs_;
};
std::string TlsTest::folder_;
std::unique_ptr<Authority> TlsTest::ours_;
std::unique_ptr<Authority> TlsTest::theirs_;

TEST_F(TlsTest, WhoHasACertificateOfTheAuthorityIsKnownByItsName) {
  Pair pair(ours_->load(TlsSide::kClient), ours_->load(TlsSide::kServer));
  pair.shake_hands("host.test");
  ASSERT_TRUE(pair.by_client) << pair.by_client.error().message();
  ASSERT_TRUE(pair.by_server) << pair.by_server.error().message();
  EXPECT_EQ(pair.server->identity(), "the-client");
}

TEST_F(TlsTest, WhoHasTheKeyIsKnownByItsUser) {
  Pair pair(keys("bob.psk", TlsSide::kClient), keys("bob.psk", TlsSide::kServer));
  pair.shake_hands("");
  ASSERT_TRUE(pair.by_client) << pair.by_client.error().message();
  EXPECT_EQ(pair.server->identity(), "bob");
}

TEST_F(TlsTest, AServerOfAnotherNameIsNotBelieved) {
  Pair pair(ours_->load(TlsSide::kClient), ours_->load(TlsSide::kServer));
  pair.shake_hands("another.test");
  ASSERT_FALSE(pair.by_client);
  EXPECT_EQ(pair.by_client.error().kind, ErrorKind::kDenied);
}

TEST_F(TlsTest, NobodyOfAnotherAuthorityIsBelieved) {
  Pair server(ours_->load(TlsSide::kClient), theirs_->load(TlsSide::kServer));
  server.shake_hands("host.test");
  EXPECT_FALSE(server.by_client);
  Pair client(theirs_->load(TlsSide::kClient), theirs_->load(TlsSide::kServer));
  client.shake_hands("host.test");
  EXPECT_TRUE(client.by_client);
  // A client that trusts our authority, and shows a certificate of another.
  fs::create_directories(folder_ + "/mixed");
  for (const char* name : {"client-cert.pem", "client-key.pem"}) {
    fs::copy_file(theirs_->path + "/" + name, folder_ + "/mixed/" + name,
                  fs::copy_options::overwrite_existing);
  }
  fs::copy_file(ours_->path + "/ca-cert.pem", folder_ + "/mixed/ca-cert.pem",
                fs::copy_options::overwrite_existing);
  const auto mixed = TlsCredentials::load({.certificates = folder_ + "/mixed"}, TlsSide::kClient);
  ASSERT_TRUE(mixed) << mixed.error().message();
  Pair stranger(*mixed, ours_->load(TlsSide::kServer));
  stranger.shake_hands("host.test");
  EXPECT_FALSE(stranger.by_server);
  EXPECT_FALSE(stranger.by_client);
  Pair unproved(*mixed, ours_->load(TlsSide::kServer, false));
  unproved.shake_hands("host.test");
  EXPECT_TRUE(unproved.by_server) << "a server that asks for no certificate";
  EXPECT_EQ(unproved.server->identity(), "");
}

TEST_F(TlsTest, AWrongKeyOrUserIsRefused) {
  for (const char* file : {"wrong.psk", "bob.psk"}) {
    Pair pair(keys(file, TlsSide::kClient), keys("keys.psk", TlsSide::kServer));
    pair.shake_hands("");
    EXPECT_FALSE(pair.by_client) << file;
    EXPECT_FALSE(pair.by_server) << file;
  }
  Pair kinds(keys("keys.psk", TlsSide::kClient), ours_->load(TlsSide::kServer));
  kinds.shake_hands("");
  EXPECT_FALSE(kinds.by_client);
}

TEST_F(TlsTest, WhoDoesNotSpeakTlsIsRefused) {
  Pair pair(ours_->load(TlsSide::kClient), ours_->load(TlsSide::kServer));
  std::thread server([&] { pair.by_server = pair.server->shake_hands(""); });
  const std::string plain = "CKPW and more, in the clear, long enough to be looked at as a record.";
  ASSERT_TRUE(pair.client->SocketStream::write(std::as_bytes(std::span(plain)), {}));
  server.join();
  ASSERT_FALSE(pair.by_server);
  EXPECT_EQ(pair.by_server.error().kind, ErrorKind::kDenied);
}

TEST_F(TlsTest, ASilentPeerIsGivenUp) {
  Pair pair(ours_->load(TlsSide::kClient), ours_->load(TlsSide::kServer));
  pair.server->set_silence(milliseconds(100));
  pair.by_server = pair.server->shake_hands("");
  ASSERT_FALSE(pair.by_server);
  EXPECT_EQ(pair.by_server.error().kind, ErrorKind::kUnreachable);
}

// Much more than a record and a socket's buffer hold, both ways at once.
TEST_F(TlsTest, AllComesAsItWasSent) {
  Pair pair(ours_->load(TlsSide::kClient), ours_->load(TlsSide::kServer));
  pair.shake_hands("host.test");
  ASSERT_TRUE(pair.by_client);
  std::vector<std::byte> sent(3'000'001);
  for (size_t i = 0; i < sent.size(); ++i) {
    sent[i] = static_cast<std::byte>(i * 7 + (i >> 8U));
  }
  const auto pass = [&sent](TlsStream& from, TlsStream& to) {
    std::vector<std::byte> came(sent.size());
    std::thread writer([&] {
      EXPECT_TRUE(from.write(ConstByteSpan(sent).first(64), ConstByteSpan(sent).subspan(64)));
    });
    EXPECT_TRUE(to.read(came));
    writer.join();
    EXPECT_EQ(came, sent);
  };
  std::thread up([&] { pass(*pair.client, *pair.server); });
  pass(*pair.server, *pair.client);
  up.join();
  pair.client->shut_down();
  std::array<std::byte, 1> more{};
  EXPECT_EQ(pair.server->read(more).error().kind, ErrorKind::kUnreachable);
}

// What was begun to be sent is never taken for what comes after it.
TEST_F(TlsTest, AStreamThatStalledIsOver) {
  Pair pair(ours_->load(TlsSide::kClient), ours_->load(TlsSide::kServer));
  pair.shake_hands("host.test");
  ASSERT_TRUE(pair.by_client);
  pair.server->set_silence(milliseconds(100));
  const std::vector<std::byte> much(8'000'000, std::byte{5});
  const auto stalled = pair.server->write(much, {});
  ASSERT_FALSE(stalled);
  EXPECT_EQ(stalled.error().kind, ErrorKind::kUnreachable);
  std::array<std::byte, 4096> taken{};
  EXPECT_TRUE(pair.client->read(taken));  // there is room again
  const std::array<std::byte, 64> more{};
  EXPECT_FALSE(pair.server->write(more, {}));
  uint64_t bytes = taken.size();
  while (pair.client->read(taken)) {
    bytes += taken.size();
    ASSERT_EQ(taken[0], std::byte{5});
  }
  EXPECT_LT(bytes, much.size());
}

// A peer that was killed while it sent is gone, and not a stranger.
TEST_F(TlsTest, ARecordThatIsCutOffIsAnEnd) {
  Pair pair(ours_->load(TlsSide::kClient), ours_->load(TlsSide::kServer));
  pair.shake_hands("host.test");
  ASSERT_TRUE(pair.by_client);
  const std::array<std::byte, 9> part{std::byte{0x17}, std::byte{3}, std::byte{3}, std::byte{0x40}};
  ASSERT_TRUE(pair.server->SocketStream::write(part, {}));
  pair.server->shut_down();
  std::array<std::byte, 1> byte{};
  const auto read = pair.client->read(byte);
  ASSERT_FALSE(read);
  EXPECT_EQ(read.error().kind, ErrorKind::kUnreachable) << read.error().message();
}

TEST_F(TlsTest, AGreetingThatIsCutOffIsAnEnd) {
  Pair pair(ours_->load(TlsSide::kClient), ours_->load(TlsSide::kServer));
  const std::array<std::byte, 9> part{std::byte{0x16}, std::byte{3}, std::byte{1}, std::byte{2}};
  ASSERT_TRUE(pair.client->SocketStream::write(part, {}));
  pair.client->shut_down();
  const auto greeted = pair.server->shake_hands("");
  ASSERT_FALSE(greeted);
  EXPECT_EQ(greeted.error().kind, ErrorKind::kUnreachable) << greeted.error().message();
}

TEST_F(TlsTest, ACertificateForTheOtherRoleIsNotOne) {
  fs::create_directories(folder_ + "/swapped");
  for (const std::string end : {"-cert.pem", "-key.pem"}) {
    fs::copy_file(ours_->path + "/server" + end, folder_ + "/swapped/client" + end,
                  fs::copy_options::overwrite_existing);
  }
  fs::copy_file(ours_->path + "/ca-cert.pem", folder_ + "/swapped/ca-cert.pem",
                fs::copy_options::overwrite_existing);
  const auto swapped =
      TlsCredentials::load({.certificates = folder_ + "/swapped"}, TlsSide::kClient);
  ASSERT_TRUE(swapped) << swapped.error().message();
  Pair pair(*swapped, ours_->load(TlsSide::kServer));
  pair.shake_hands("host.test");
  EXPECT_FALSE(pair.by_server);
}

TEST_F(TlsTest, AClientWithoutACertificateIsForAServerThatAsksForNone) {
  fs::create_directories(folder_ + "/bare");
  fs::copy_file(ours_->path + "/ca-cert.pem", folder_ + "/bare/ca-cert.pem",
                fs::copy_options::overwrite_existing);
  const auto bare = TlsCredentials::load({.certificates = folder_ + "/bare"}, TlsSide::kClient);
  ASSERT_TRUE(bare) << bare.error().message();
  Pair taken(*bare, ours_->load(TlsSide::kServer, false));
  taken.shake_hands("host.test");
  EXPECT_TRUE(taken.by_client);
  Pair refused(*bare, ours_->load(TlsSide::kServer));
  refused.shake_hands("host.test");
  EXPECT_FALSE(refused.by_server);
  EXPECT_EQ(refused.by_client.error().kind, ErrorKind::kDenied);
  EXPECT_FALSE(TlsCredentials::load({.certificates = folder_ + "/bare"}, TlsSide::kServer));
}

TEST_F(TlsTest, AClientThatBelievesAllTakesAnyServer) {
  const auto trusting =
      TlsCredentials::load({.certificates = ours_->path, .verify_peer = false}, TlsSide::kClient);
  ASSERT_TRUE(trusting);
  Pair pair(*trusting, theirs_->load(TlsSide::kServer, false));
  pair.shake_hands("another.test");
  EXPECT_TRUE(pair.by_client);
}

// As a whole, when it is loaded; not line by line while somebody edits it.
TEST_F(TlsTest, KeysAreThoseThatWereLoaded) {
  ours_->run("cp keys.psk edited.psk");
  const auto loaded = keys("edited.psk", TlsSide::kServer);
  ours_->write("edited.psk", "");
  Pair pair(keys("keys.psk", TlsSide::kClient), loaded);
  pair.shake_hands("");
  EXPECT_TRUE(pair.by_client);
  EXPECT_EQ(pair.server->identity(), "alice");
}

TEST_F(TlsTest, EveryLineOfKeysIsLookedAt) {
  const std::pair<const char*, const char*> bad[] = {
      {"alice:00ff\nbob\n", ":2"},
      {"alice:00ff\n\nbob:xyz\n", ":3"},
      {"alice:00ff\nalice:00fe\n", "twice"},
      {"#616c:00ff\n", ":1"},
      {"alice:\n", ":1"},
      {"\n", "no key"},
  };
  for (const auto& [content, said] : bad) {
    ours_->write("bad.psk", content);
    ours_->run("chmod 600 bad.psk");
    EXPECT_NE(refusal({.psk = ours_->path + "/bad.psk"}, TlsSide::kServer).find(said),
              std::string::npos)
        << content;
  }
}

TEST_F(TlsTest, FilesThatDoNotFitAreNamed) {
  EXPECT_NE(refusal({}, TlsSide::kClient).find("needs tls-certificates"), std::string::npos);
  EXPECT_NE(
      refusal({.certificates = ours_->path, .psk = "x"}, TlsSide::kClient).find("one of them"),
      std::string::npos);
  EXPECT_NE(refusal({.certificates = "/nowhere"}, TlsSide::kClient).find("/nowhere/ca-cert.pem"),
            std::string::npos);
  EXPECT_NE(refusal({.psk = "/nowhere"}, TlsSide::kServer).find("/nowhere"), std::string::npos);
  ours_->write("two.psk", "a:00ff\nb:00ff\n");
  ours_->write("none.psk", "");
  ours_->run("chmod 600 two.psk none.psk; cp keys.psk open.psk; chmod 644 open.psk");
  for (const char* file : {"two.psk", "none.psk"}) {
    EXPECT_NE(refusal({.psk = ours_->path + "/" + file}, TlsSide::kClient), "taken") << file;
  }
  EXPECT_NE(refusal({.psk = ours_->path + "/open.psk"}, TlsSide::kClient).find("others may read"),
            std::string::npos);
}

}  // namespace
}  // namespace ckpt::test
