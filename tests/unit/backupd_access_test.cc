// SPDX-License-Identifier: Apache-2.0
// Who may do what with which volume: every identity, volume and operation, by the list itself and
// by what a connection answers.
#include <fstream>
#include <sstream>

#include "backupd/access_list.h"
#include "backupd/config_file.h"
#include "common/stale_message.h"
#include "tests/unit/served_talk.h"

namespace ckpt::test {
namespace {

const Uuid kFirst = test_uuid(0x11);  // the one that a Talk is about
const Uuid kSecond = test_uuid(0x22);

std::shared_ptr<const AccessList> sample_list() {
  const auto bits = [](std::initializer_list<Operation> operations) {
    uint8_t all = 0;
    for (const Operation one : operations) {
      all |= static_cast<uint8_t>(one);
    }
    return all;
  };
  return std::make_shared<const AccessList>(std::vector<AccessRule>{
      {"primary", kFirst, bits({Operation::kWrite, Operation::kRead, Operation::kStatus})},
      {"shipper", kFirst, bits({Operation::kWrite})},
      {"maker", std::nullopt, bits({Operation::kWrite, Operation::kCreate})},
      {"auditor", std::nullopt, bits({Operation::kRead})},
      {"auditor", kSecond, bits({Operation::kStatus})},
      {"*", kFirst, bits({Operation::kStatus})},
  });
}

struct Row {
  const char* identity;
  const char* first;  // of status, read, write, create: those that it may, by their first letters
  const char* second;
};

constexpr Row kRows[] = {
    {"primary", "srw", ""}, {"shipper", "sw", ""}, {"maker", "swc", "wc"}, {"auditor", "sr", "sr"},
    {"stranger", "s", ""},  {"", "s", ""},         {"*", "s", ""},         {"Primary", "s", ""},
};
constexpr Operation kAll[] = {Operation::kStatus, Operation::kRead, Operation::kWrite,
                              Operation::kCreate};

bool may(const char* letters, Operation operation) {
  return std::string(letters).find(word_of(operation)[0]) != std::string::npos;
}

TEST(AccessList, IsAskedForIdentityVolumeAndOperation) {
  const auto list = sample_list();
  for (const Row& row : kRows) {
    for (const Operation operation : kAll) {
      EXPECT_EQ(list->allows(row.identity, kFirst, operation), may(row.first, operation))
          << row.identity << " " << word_of(operation);
      EXPECT_EQ(list->allows(row.identity, kSecond, operation), may(row.second, operation))
          << row.identity << " " << word_of(operation);
    }
  }
}

TEST(AccessList, WithoutARuleNobodyMayDoAnything) {
  for (const Operation operation : kAll) {
    EXPECT_FALSE(AccessList({}).allows("root", kFirst, operation));
    EXPECT_EQ(*parse_operation(word_of(operation)), operation);
  }
  EXPECT_FALSE(parse_operation("all"));
}

// What a request answers to whoever has these rights; denied, or not.
bool is_denied(const Result<std::vector<std::byte>>& answer) {
  return !answer && answer.error().kind == ErrorKind::kDenied;
}

TEST(Access, EachRequestNeedsItsRight) {
  const struct {
    FrameType type;
    FrameType answer;
    std::vector<std::byte> body;
    Operation operation;
  } requests[] = {
      {FrameType::kStatus, FrameType::kStoreStatus, {}, Operation::kStatus},
      {FrameType::kCheckpoints, FrameType::kCheckpointList, encode_checkpoints({}),
       Operation::kStatus},
      {FrameType::kRead, FrameType::kData, encode_read({0, 4096}), Operation::kRead},
      {FrameType::kNextData, FrameType::kDataRange, encode_next_data(0), Operation::kRead},
      {FrameType::kReadRanges, FrameType::kHole,
       encode_read_ranges(std::array<ByteRange, 1>{{{0, 4096}}}), Operation::kRead},
      {FrameType::kDigests, FrameType::kDigestList, encode_digests({{0, 1}, 0, 0}),
       Operation::kRead},
      {FrameType::kStale, FrameType::kStaleList, encode_stale(0), Operation::kRead},
      {FrameType::kReadAttachment, FrameType::kDone, encode_read_attachment({{1}, "x"}),
       Operation::kRead},
      {FrameType::kExport, FrameType::kExportBegins, encode_export(std::nullopt), Operation::kRead},
  };
  for (const Row& row : kRows) {
    const Role role = may(row.first, Operation::kWrite) ? Role::kSession : Role::kReader;
    for (const auto& request : requests) {
      OneVolume shelf;
      Talk talk(shelf, 1, {row.identity, sample_list()});
      ASSERT_DONE(talk.hello(role));
      const bool was_denied = is_denied(talk.ask(request.type, request.body, request.answer));
      EXPECT_EQ(was_denied, !may(row.first, request.operation))
          << row.identity << " " << frame_name(request.type);
      if (was_denied) {
        EXPECT_TRUE(talk.ask(FrameType::kPing, {})) << "a refusal ends nothing";
      }
    }
  }
}

TEST(Access, AllThatASessionDoesIsToWrite) {
  for (const FrameType type :
       {FrameType::kBeginSession, FrameType::kAccept, FrameType::kBatch, FrameType::kAttach,
        FrameType::kConfirm, FrameType::kConfirmCopy, FrameType::kForks, FrameType::kRollBack,
        FrameType::kPromote, FrameType::kStop, FrameType::kName}) {
    EXPECT_EQ(operation_of(type), Operation::kWrite) << frame_name(type);
  }
}

TEST(Access, WhoMayNotWriteHasNoSession) {
  for (const Row& row : kRows) {
    OneVolume shelf;
    Talk talk(shelf, 1, {row.identity, sample_list()});
    const auto welcome = talk.hello(Role::kSession);
    EXPECT_EQ(welcome.has_value(), may(row.first, Operation::kWrite)) << row.identity;
    if (!welcome) {
      EXPECT_EQ(welcome.error().kind, ErrorKind::kDenied);
      EXPECT_NE(welcome.error().message().find("\"write\""), std::string::npos);
    }
  }
}

// Whether the volume is there is told to those only who may see it.
TEST(Access, WhoMayDoNothingHearsNothing) {
  OneVolume shelf;
  const auto list = std::make_shared<const AccessList>(std::vector<AccessRule>{});
  for (const Uuid& volume : {kFirst, kSecond}) {
    Talk talk(shelf, 1, {"", list});
    const auto welcome = talk.hello(Role::kReader, volume);
    ASSERT_FALSE(welcome);
    EXPECT_EQ(welcome.error().kind, ErrorKind::kDenied);
    EXPECT_NE(welcome.error().message().find("an unnamed client"), std::string::npos);
  }
}

TEST(Access, AVisitorSeesTheVolumesThatItMayLookAt) {
  for (const Row& row : kRows) {
    OneVolume shelf;
    Talk talk(shelf, 1, {row.identity, sample_list()});
    ASSERT_DONE(talk.visit());  // anybody may see that the first is there
    const auto list = talk.volumes();
    ASSERT_DONE(list);
    const bool is_seen = may(row.first, Operation::kStatus) || may(row.first, Operation::kRead);
    EXPECT_EQ(list->volumes.size(), is_seen ? 1U : 0U) << row.identity;
  }
  const auto look = static_cast<uint8_t>(Operation::kRead);
  const auto write = static_cast<uint8_t>(Operation::kWrite);
  const auto others = std::make_shared<const AccessList>(
      std::vector<AccessRule>{{"auditor", kSecond, look}, {"shipper", std::nullopt, write}});
  OneVolume shelf;
  Talk talk(shelf, 1, {"auditor", others});
  ASSERT_DONE(talk.visit());
  EXPECT_TRUE(talk.volumes()->volumes.empty()) << "it is of another";
  Talk refused(shelf, 2, {"shipper", others});
  const auto welcome = refused.visit();
  ASSERT_FALSE(welcome);
  EXPECT_EQ(welcome.error().kind, ErrorKind::kDenied);
}

// One line of a log is one line.
TEST(Access, ANameIsPrintedWithoutControlCharacters) {
  OneVolume shelf;
  Talk talk(shelf, 1, {"eve\nroot: all is well", sample_list()});
  const auto welcome = talk.hello(Role::kSession);
  ASSERT_FALSE(welcome);
  EXPECT_NE(welcome.error().message().find("eve?root"), std::string::npos);
  EXPECT_EQ(welcome.error().message().find('\n'), std::string::npos);
}

// ---- the configuration file

class ConfigFileTest : public testing::Test {
 protected:
  ~ConfigFileTest() override {
    (void)::unlink(path_.c_str());
    (void)::rmdir(folder_.c_str());
  }
  static std::string make_folder() {
    std::string name = testing::TempDir() + "/ckpt-config-XXXXXX";
    return ::mkdtemp(name.data());
  }
  Result<DaemonOptions> read(const std::string& text) {
    std::ofstream(path_) << text;
    DaemonOptions options;
    CKPT_TRY(read_config_file(path_, options));
    return options;
  }
  // With the command line after it.
  Result<DaemonOptions> parse(const std::string& text, std::vector<const char*> words) {
    std::ofstream(path_) << text;
    words.insert(words.begin(), {"backupd", "--config", path_.c_str()});
    return parse_daemon_options(static_cast<int>(words.size()), words.data());
  }
  void expect_refused(const std::string& text, const std::string& why) {
    const auto options = read(text);
    ASSERT_FALSE(options) << text;
    EXPECT_EQ(options.error().kind, ErrorKind::kInvalid);
    const std::string message = options.error().message();
    EXPECT_NE(message.find(why), std::string::npos) << message;
    EXPECT_EQ(message.rfind(path_, 0), 0U) << message;
  }

  const std::string folder_ = make_folder();
  const std::string path_ = folder_ + "/backupd.toml";
};

// The manual's example is this file.
TEST_F(ConfigFileTest, TheExampleIsRight) {
  std::stringstream example;
  example << std::ifstream(CKPT_DOCS_DIR "/backupd.toml").rdbuf();
  ASSERT_FALSE(example.str().empty());
  const auto options = read(example.str());
  ASSERT_TRUE(options) << options.error().message();
  EXPECT_EQ(options->listen.size(), 2U);
  EXPECT_EQ(options->store, "/var/lib/ckpt-backup");
  EXPECT_EQ(options->tls.certificates, "/etc/ckpt/tls");
  ASSERT_NE(options->access, nullptr);
  const Uuid volume = *Uuid::parse("2063e5af-f7c0-4935-8d96-6b9e95fde9cc");
  EXPECT_TRUE(options->access->allows("web1", volume, Operation::kWrite));
  EXPECT_FALSE(options->access->allows("web1", kFirst, Operation::kWrite));
  EXPECT_TRUE(options->access->allows("monitor", kFirst, Operation::kStatus));
  EXPECT_FALSE(options->access->allows("monitor", kFirst, Operation::kRead));
}

TEST_F(ConfigFileTest, EachKeyIsRead) {
  const auto options = read(
      "listen = 'unix:/run/x'\nstore = '/s'\npidfile = '/p'\nsilence = 3\n"
      "tls = 'require'\ntls-psk = '/k'\ntls-verify-peer = false\n");
  ASSERT_TRUE(options) << options.error().message();
  EXPECT_EQ(options->listen, std::vector<Address>{*parse_address("unix:/run/x")});
  EXPECT_EQ(options->store, "/s");
  EXPECT_EQ(options->pid_file, "/p");
  EXPECT_EQ(options->silence, std::chrono::seconds(3));
  EXPECT_EQ(options->tls, (TlsOptions{.psk = "/k", .verify_peer = false, .use = TlsUse::kRequire}));
  EXPECT_EQ(options->access, nullptr);
}

TEST_F(ConfigFileTest, TheCommandLineGoesBeforeIt) {
  const std::string file =
      "listen = 'unix:/run/x'\nstore = '/s'\nsilence = 3\ntls-certificates = '/c'\n";
  const auto same = parse(file, {"-f"});
  ASSERT_TRUE(same) << same.error().message();
  EXPECT_EQ(same->silence, std::chrono::seconds(3));
  EXPECT_EQ(same->tls.certificates, "/c");
  EXPECT_TRUE(same->foreground);
  const auto other = parse(file, {"--listen=host:1", "--store=/t", "--silence=9", "--tls-psk=/k"});
  ASSERT_TRUE(other) << other.error().message();
  EXPECT_EQ(other->listen, std::vector<Address>{*parse_address("host:1")});
  EXPECT_EQ(other->store, "/t");
  EXPECT_EQ(other->silence, std::chrono::seconds(9));
  EXPECT_EQ(other->tls, TlsOptions{.psk = "/k"}) << "all that is said of TLS goes together";
}

TEST_F(ConfigFileTest, WhatIsWrongIsNamedWithItsLine) {
  expect_refused("store = '/s'\nstroe = 1\n", ":2: there is no \"stroe\"");
  expect_refused("store = 1\n", ":1: store: must be a text");
  expect_refused("store = ''\n", "not empty");
  expect_refused("\n\nstore = \n", ":3:");
  expect_refused("listen = []\n", "empty list");
  expect_refused("listen = 'nonsense'\n", "listen: nonsense: not an address");
  expect_refused("silence = 0\n", "from 1 to 3600");
  expect_refused("silence = 1.5\n", "from 1 to 3600");
  expect_refused("tls = 'maybe'\n", "off or require");
  expect_refused("tls-verify-peer = 'no'\n", "true or false");
  expect_refused("allow = 1\n", "[[allow]]");
  const auto nobody = read("store = '/s'\nallow = []\n");
  ASSERT_TRUE(nobody);
  ASSERT_NE(nobody->access, nullptr);
  EXPECT_FALSE(nobody->access->allows("", kFirst, Operation::kStatus));
  expect_refused("[allow]\nidentity = 'a'\n", "[[allow]]");
  expect_refused("[[allow]]\nidentity = 'a'\nvolume = '*'\n", ":1: [[allow]] needs");
  expect_refused("[[allow]]\nidentity='a'\nvolume='x'\noperations='read'\n", ":3: volume: \"x\"");
  expect_refused("[[allow]]\nidentity='a'\nvolume='*'\noperations='all'\n", ":4: operations");
  expect_refused("[[allow]]\nuser='a'\n", "there is no \"user\"");
  DaemonOptions options;
  EXPECT_NE(read_config_file("/nowhere/x", options).error().message().find("/nowhere/x"),
            std::string::npos);
}

TEST_F(ConfigFileTest, WhatDoesNotFitTogetherIsRefused) {
  const std::string rule = "[[allow]]\nidentity='a'\nvolume='*'\noperations='read'\n";
  EXPECT_FALSE(parse("store='/s'\n" + rule, {})) << "nobody proves to be a";
  EXPECT_FALSE(parse("store='/s'\ntls-certificates='/c'\ntls-verify-peer=false\n" + rule, {}));
  EXPECT_TRUE(parse("store='/s'\ntls-psk='/k'\n" + rule, {}));
  EXPECT_TRUE(parse("store='/s'\n[[allow]]\nidentity='*'\nvolume='*'\noperations='read'\n", {}));
  EXPECT_FALSE(parse("listen='unix:/x'\n", {})) << "no store";
  EXPECT_FALSE(parse("store='/s'\ntls='require'\n", {}));
  EXPECT_FALSE(parse("store='/s'\ntls-psk='/k'\n", {"--tls=off", "--tls-psk=/k"}));
}

}  // namespace
}  // namespace ckpt::test
