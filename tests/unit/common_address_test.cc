// SPDX-License-Identifier: Apache-2.0
// Addresses as people write them, and sockets at them.
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <cerrno>
#include <cstdlib>
#include <fstream>

#include "common/socket.h"

namespace ckpt::test {
namespace {

using std::chrono::milliseconds;

class TemporaryFolder {
 public:
  TemporaryFolder() {
    std::string name = "/tmp/ckpt-address-XXXXXX";
    path = ::mkdtemp(name.data());
  }
  ~TemporaryFolder() {
    for (const char* name : {"/s", "/file"}) {
      (void)::unlink((path + name).c_str());
    }
    (void)::rmdir(path.c_str());
  }
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;
  std::string path;
};

std::string read_back(const std::string& text) {
  const auto address = parse_address(text);
  return address ? address->to_string() : "refused";
}

TEST(Address, IsReadAsItIsWritten) {
  for (const char* text : {"unix:/run/ckpt/backupd.sock", "host.example:7000", "10.0.0.1:1",
                           "[fe80::1]:65535", "unix:/a path/with:colon"}) {
    EXPECT_EQ(read_back(text), text);
  }
  EXPECT_EQ(read_back("tcp:host:7000"), "host:7000");
  EXPECT_EQ(read_back("tcp:tcp:7000"), "tcp:tcp:7000");  // hosts that are called like a kind
  EXPECT_EQ(read_back("tcp:unix:7000"), "tcp:unix:7000");
  EXPECT_EQ(parse_address("[::1]:7000")->host, "::1");
}

TEST(Address, WhatIsNoneIsRefused) {
  for (const char* text :
       {"", "host", "host:", ":7000", "host:port", "host:0", "host:65536", "::1:7000", "[::1]",
        "[]:7000", "host:-1", "host:7000/x", "unix:", "unix:relative", "a/b:7000"}) {
    EXPECT_EQ(read_back(text), "refused") << text;
  }
  EXPECT_EQ(read_back("unix:/" + std::string(200, 'p')), "refused");
}

TEST(Socket, AUnixSocketIsForItsUserAndAStaleOneIsReplaced) {
  const TemporaryFolder folder;
  const Address address{folder.path + "/s", "", ""};
  EXPECT_EQ(connect_socket(address, Reach::kMachine, milliseconds(1000)).error().kind,
            ErrorKind::kUnreachable);
  for (int life = 0; life < 2; ++life) {
    const auto listeners = listen_at(address, Reach::kMachine);
    ASSERT_TRUE(listeners) << listeners.error().message();
    struct stat status {};
    ASSERT_EQ(::stat(address.path.c_str(), &status), 0);
    EXPECT_EQ(status.st_mode & 0777U, 0600U);
    const auto client = connect_socket(address, Reach::kMachine, milliseconds(1000));
    ASSERT_TRUE(client) << client.error().message();
    const auto accepted = accept_socket(listeners->front().get());
    ASSERT_TRUE(accepted) << accepted.error().message();
    EXPECT_NE(accepted->peer.find("process " + std::to_string(::getpid())), std::string::npos);
    EXPECT_EQ(listen_at(address, Reach::kMachine).error().kind, ErrorKind::kBusy);
  }
}

TEST(Socket, AFileThatIsNoSocketStays) {
  const TemporaryFolder folder;
  const std::string path = folder.path + "/file";
  std::ofstream(path) << "content";
  EXPECT_EQ(listen_at({path, "", ""}, Reach::kMachine).error().kind, ErrorKind::kBusy);
  std::ifstream file(path);
  std::string content;
  file >> content;
  EXPECT_EQ(content, "content");
}

TEST(Socket, BeyondThisMachineOnlyIfThatIsSaid) {
  const auto refused = listen_at({"", "0.0.0.0", "1"}, Reach::kMachine);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().kind, ErrorKind::kInvalid);
  EXPECT_NE(refused.error().message().find("tls=off"), std::string::npos);
  EXPECT_EQ(
      connect_socket({"", "192.0.2.1", "7000"}, Reach::kMachine, milliseconds(10)).error().kind,
      ErrorKind::kInvalid);
  // An address that documentation has for itself (RFC 5737): nobody answers.
  EXPECT_EQ(
      connect_socket({"", "192.0.2.1", "7000"}, Reach::kAnywhere, milliseconds(10)).error().kind,
      ErrorKind::kUnreachable);
}

TEST(Socket, NobodyToAcceptIsNoFailure) {
  const TemporaryFolder folder;
  const auto listeners = listen_at({folder.path + "/s", "", ""}, Reach::kMachine);
  ASSERT_TRUE(listeners);
  EXPECT_EQ(accept_socket(listeners->front().get()).error().number, EAGAIN);
}

}  // namespace
}  // namespace ckpt::test
