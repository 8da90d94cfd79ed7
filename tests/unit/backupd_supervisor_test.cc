// SPDX-License-Identifier: Apache-2.0
// What is said to whoever started the daemon, and which of its sockets are taken.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <cstdlib>
#include <filesystem>
#include <optional>

#include "backupd/supervisor.h"

namespace ckpt::test {
namespace {

namespace fs = std::filesystem;

// A variable of the environment, and afterwards what was there before; nothing: it is not there.
class Variable {
 public:
  Variable(const char* name, const std::optional<std::string>& value) : name_(name) {
    if (const char* const before = std::getenv(name); before != nullptr) {
      before_ = before;
    }
    set(value);
  }
  ~Variable() { set(before_); }
  Variable(const Variable&) = delete;
  Variable& operator=(const Variable&) = delete;

 private:
  void set(const std::optional<std::string>& value) const {
    if (value) {
      ::setenv(name_, value->c_str(), 1);
    } else {
      ::unsetenv(name_);
    }
  }
  const char* name_;
  std::optional<std::string> before_;
};

UniqueFd bound(int type, const std::string& name) {
  UniqueFd fd(::socket(AF_UNIX, type | SOCK_CLOEXEC, 0));
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  name.copy(address.sun_path, sizeof(address.sun_path));
  const auto length = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + name.size());
  EXPECT_EQ(
      ::bind(fd.get(), static_cast<const sockaddr*>(static_cast<const void*>(&address)), length), 0)
      << name;
  return fd;
}

// What has come; "nothing", if that is so.
std::string received(const UniqueFd& socket) {
  std::string text(256, '\0');
  const ssize_t count = ::recv(socket.get(), text.data(), text.size(), MSG_DONTWAIT);
  return count < 0 ? "nothing" : text.substr(0, static_cast<size_t>(count));
}

class SupervisorTest : public testing::Test {
 protected:
  SupervisorTest() {
    std::string pattern = testing::TempDir() + "supervisor-XXXXXX";
    folder_ = ::mkdtemp(pattern.data());
  }
  ~SupervisorTest() override { fs::remove_all(folder_); }

  std::string folder_;
};

TEST_F(SupervisorTest, HearsEachStateByItself) {
  const std::string path = folder_ + "/notify";
  const UniqueFd supervisor = bound(SOCK_DGRAM, path);
  const Variable variable("NOTIFY_SOCKET", path);
  tell_supervisor("READY=1");
  tell_supervisor("RELOADING=1\nMONOTONIC_USEC=5");
  EXPECT_EQ(received(supervisor), "READY=1");
  EXPECT_EQ(received(supervisor), "RELOADING=1\nMONOTONIC_USEC=5");
  EXPECT_EQ(received(supervisor), "nothing");
}

TEST_F(SupervisorTest, HearsAtAnAbstractSocketToo) {
  const std::string name = "ckpt-test-" + std::to_string(::getpid());
  const UniqueFd supervisor = bound(SOCK_DGRAM, std::string(1, '\0') + name);
  const Variable variable("NOTIFY_SOCKET", "@" + name);
  tell_supervisor("STOPPING=1");
  EXPECT_EQ(received(supervisor), "STOPPING=1");
}

TEST_F(SupervisorTest, NeedNotHear) {
  const std::string path = folder_ + "/notify";
  const UniqueFd supervisor = bound(SOCK_DGRAM, path);
  const std::string too_long = folder_ + "/" + std::string(sizeof(sockaddr_un::sun_path), 'x');
  for (const std::optional<std::string>& value : std::vector<std::optional<std::string>>{
           std::nullopt, "", "@", folder_ + "/nobody", too_long}) {
    const Variable variable("NOTIFY_SOCKET", value);
    tell_supervisor("READY=1");
    EXPECT_EQ(received(supervisor), "nothing");
  }
}

constexpr int kFirstHanded = 3;  // sd_listen_fds(3)

// Sockets that a supervisor hands over: descriptors from 3 on, and afterwards what was there
// before.
class HandedOver {
 public:
  explicit HandedOver(std::vector<UniqueFd> sockets) {
    // Numbers that are not among those to be given out.
    for (size_t i = 0; i < sockets.size(); ++i) {
      const int number = kFirstHanded + static_cast<int>(i);
      before_.emplace_back(::fcntl(number, F_DUPFD_CLOEXEC, 100));
      sockets[i] = UniqueFd(::fcntl(UniqueFd(std::move(sockets[i])).get(), F_DUPFD, 100));
    }
    for (size_t i = 0; i < sockets.size(); ++i) {
      EXPECT_GE(::dup2(sockets[i].get(), kFirstHanded + static_cast<int>(i)), 0);
    }
  }
  ~HandedOver() {
    for (size_t i = 0; i < before_.size(); ++i) {
      const int number = kFirstHanded + static_cast<int>(i);
      ::close(number);
      if (before_[i]) {
        ::dup2(before_[i].get(), number);
      }
    }
  }
  HandedOver(const HandedOver&) = delete;
  HandedOver& operator=(const HandedOver&) = delete;

 private:
  std::vector<UniqueFd> before_;
};

class ListenersTest : public SupervisorTest {
 protected:
  UniqueFd listening(int type = SOCK_STREAM) {
    UniqueFd fd = bound(type, folder_ + "/listener" + std::to_string(++count_));
    EXPECT_EQ(::listen(fd.get(), 1), 0);
    return fd;
  }
  // At a port of the kernel's choice of this IPv4 address.
  static UniqueFd listening_at(uint32_t host) {
    UniqueFd fd(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(host);
    const auto* const name = static_cast<const sockaddr*>(static_cast<const void*>(&address));
    EXPECT_EQ(::bind(fd.get(), name, sizeof(address)), 0);
    EXPECT_EQ(::listen(fd.get(), 1), 0);
    return fd;
  }
  template <typename... Sockets>
  static HandedOver hand_over(Sockets... sockets) {
    std::vector<UniqueFd> all;
    (all.push_back(std::move(sockets)), ...);
    return HandedOver(std::move(all));
  }
  static size_t count_of(const std::string& fds, const std::string& pid = own()) {
    const Variable process("LISTEN_PID", pid);
    const Variable count("LISTEN_FDS", fds);
    const auto listeners = inherited_listeners(Reach::kMachine);
    EXPECT_TRUE(listeners) << listeners.error().message();
    return listeners->size();
  }
  static void expect_refused(const std::string& fds, const std::string& text) {
    const Variable process("LISTEN_PID", own());
    const Variable count("LISTEN_FDS", fds);
    const auto listeners = inherited_listeners(Reach::kMachine);
    ASSERT_FALSE(listeners);
    EXPECT_EQ(listeners.error().kind, ErrorKind::kInvalid);
    EXPECT_NE(listeners.error().message().find(text), std::string::npos)
        << listeners.error().message();
  }
  static std::string own() { return std::to_string(::getpid()); }

 private:
  int count_ = 0;
};

TEST_F(ListenersTest, AreTakenInTheirOrder) {
  const HandedOver handed = hand_over(listening(), listening_at(INADDR_LOOPBACK));
  const Variable process("LISTEN_PID", own());
  const Variable count("LISTEN_FDS", "2");
  const auto listeners = inherited_listeners(Reach::kMachine);
  ASSERT_TRUE(listeners) << listeners.error().message();
  ASSERT_EQ(listeners->size(), 2U);
  for (int i = 0; i < 2; ++i) {
    const int number = (*listeners)[static_cast<size_t>(i)].get();
    EXPECT_EQ(number, kFirstHanded + i);
    EXPECT_TRUE(::fcntl(number, F_GETFD) & FD_CLOEXEC) << "a child would keep it";
    EXPECT_TRUE(::fcntl(number, F_GETFL) & O_NONBLOCK) << "a client that leaves would block it";
  }
}

TEST_F(ListenersTest, AreForTheProcessThatIsNamed) {
  const HandedOver handed = hand_over(listening());
  EXPECT_EQ(count_of("1", std::to_string(::getppid())), 0U);
  EXPECT_EQ(count_of("1", ""), 0U);
  EXPECT_EQ(count_of("1"), 1U);
}

TEST_F(ListenersTest, AreNoneWithoutANumberOfThem) {
  const HandedOver handed = hand_over(listening());
  for (const char* fds : {"", "0", "-1", "1x", "x", " 1", "99999999999999999999"}) {
    EXPECT_EQ(count_of(fds), 0U) << fds;
  }
  const Variable process("LISTEN_PID", std::nullopt);
  const Variable count("LISTEN_FDS", std::nullopt);
  const auto listeners = inherited_listeners(Reach::kMachine);
  ASSERT_TRUE(listeners);
  EXPECT_TRUE(listeners->empty());
}

TEST_F(ListenersTest, OtherDescriptorsAreRefused) {
  const std::string text =
      "descriptor 4, which this was started with, is no stream socket that listens";
  {
    const HandedOver handed = hand_over(listening(), UniqueFd(::open("/dev/null", O_RDONLY)));
    expect_refused("2", text);
  }
  {
    const HandedOver handed = hand_over(listening(), bound(SOCK_STREAM, folder_ + "/bound"));
    expect_refused("2", text);
  }
  {
    const HandedOver handed = hand_over(listening(), bound(SOCK_DGRAM, folder_ + "/datagrams"));
    expect_refused("2", text);
  }
}

// It listens, but what comes there is no stream.
TEST_F(ListenersTest, AnotherKindOfListenerIsRefused) {
  const HandedOver handed = hand_over(listening(SOCK_SEQPACKET));
  expect_refused("1", "descriptor 3, which this was started with, is no stream socket");
}

TEST_F(ListenersTest, BeyondItsReachIsRefused) {
  {
    const HandedOver handed = hand_over(listening_at(INADDR_ANY));
    expect_refused("1", "0.0.0.0");
  }
  const HandedOver handed = hand_over(listening_at(INADDR_ANY));
  const Variable process("LISTEN_PID", own());
  const Variable count("LISTEN_FDS", "1");
  EXPECT_TRUE(inherited_listeners(Reach::kAnywhere));
}

}  // namespace
}  // namespace ckpt::test
