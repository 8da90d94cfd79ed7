// SPDX-License-Identifier: Apache-2.0
// A primary that meets a back-up of another version of the protocol: it says so, and does not wait.
#include <unistd.h>

#include <thread>

#include "common/clock.h"
#include "common/socket.h"
#include "common/socket_stream.h"
#include "common/remote_store.h"
#include "tests/unit/store_peer.h"
#include "tests/unit/versioned_frame.h"

namespace ckpt::test {
namespace {

using std::chrono::milliseconds;

constexpr milliseconds kBackUpPatience{2000};

// Takes one connection, says those bytes to its first frame, and nothing else.
class StrangeBackUp {
 public:
  explicit StrangeBackUp(std::vector<std::byte> says) {
    std::string name = "/tmp/ckpt-strange-XXXXXX";
    folder_ = ::mkdtemp(name.data());
    auto listeners = listen_at(address(), Reach::kMachine);
    EXPECT_TRUE(listeners);
    listener_ = std::move(listeners->front());
    thread_ = std::thread([this, says = std::move(says)] { serve(says); });
  }
  ~StrangeBackUp() {
    thread_.join();
    (void)::unlink(address().path.c_str());
    (void)::rmdir(folder_.c_str());
  }
  StrangeBackUp(const StrangeBackUp&) = delete;
  StrangeBackUp& operator=(const StrangeBackUp&) = delete;
  [[nodiscard]] Address address() const { return {folder_ + "/backupd.sock", "", ""}; }

 private:
  void serve(const std::vector<std::byte>& says) {
    auto accepted = accept_socket(listener_.get());
    while (!accepted) {
      std::this_thread::sleep_for(milliseconds(5));
      accepted = accept_socket(listener_.get());
    }
    SocketStream stream(std::move(accepted->socket), "client", kBackUpPatience);
    FrameChannel channel(stream);
    ReceivedFrame frame;
    ASSERT_DONE(channel.receive(frame));
    ASSERT_DONE(stream.write(says, {}));
    (void)channel.receive(frame);  // until the client has gone
  }

  std::string folder_;
  UniqueFd listener_;
  std::thread thread_;
};

// What the primary says to whom its hello was answered with that.
void expect_refused(const std::vector<std::byte>& answer, const std::string& text) {
  StrangeBackUp other(answer);
  RemoteOptions options;
  options.address = other.address();
  options.volume = test_uuid(0x11);
  options.size_bytes = kPeerDiskBytes;
  options.patience = milliseconds(60'000);  // longer than the test may take
  RemoteStore remote(options, system_clock());
  const SteadyTime before = system_clock().steady();
  const auto begun = remote.begin_session();
  EXPECT_LT(system_clock().steady() - before, kBackUpPatience);
  EXPECT_KIND(kInvalid, begun);
  EXPECT_EQ(begun.error().context, options.address.to_string() + ": " + text);
  EXPECT_KIND(kInvalid, remote.check_link());  // for its status
}

constexpr char kOfOtherVersion[] =
    "the other side speaks version 7 of the protocol, and this side version 1: have the same "
    "version of ckpt on both machines";

Welcome welcome_of(uint32_t version) {
  return {.version = version,
          .silence = milliseconds(600),
          .connection = 5,
          .size_bytes = kPeerDiskBytes,
          .window_bytes = 1 << 20,
          .software = ""};
}

TEST(OtherVersion, AWelcomeInOneThatWasNotOffered) {
  expect_refused(frame_of_version(1, FrameType::kWelcome, 1, encode_welcome(welcome_of(7))),
                 kOfOtherVersion);
}

TEST(OtherVersion, AFrameOfOne) {
  expect_refused(frame_of_version(7, FrameType::kWelcome, 1, encode_welcome(welcome_of(7))),
                 std::string("frame: ") + kOfOtherVersion);
}

TEST(OtherVersion, ABackUpThatSaysItself) {
  const std::string said = "version 1 is not spoken here";
  expect_refused(
      frame_of_version(1, FrameType::kFailed, 1, encode_failed({ErrorKind::kInvalid, 0, said})),
      said);
}

TEST(OtherVersion, AFeatureThatWasNotOffered) {
  Welcome welcome = welcome_of(1);
  welcome.features = uint64_t{1} << 40U;
  expect_refused(frame_of_version(1, FrameType::kWelcome, 1, encode_welcome(welcome)),
                 "the back-up uses features that it was not offered");
}

}  // namespace
}  // namespace ckpt::test
