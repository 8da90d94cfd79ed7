// SPDX-License-Identifier: Apache-2.0
// What a user may call a volume, and what is found for it.
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "common/socket.h"
#include "plugin/control_server.h"
#include "tests/unit/control_fake_volume.h"
#include "tools/backup_name.h"
#include "tools/open_volume.h"

namespace ckpt {
namespace {

namespace fs = std::filesystem;

class OpenVolumeTest : public testing::Test {
 protected:
  OpenVolumeTest() {
    std::string pattern = testing::TempDir() + "open-XXXXXX";
    directory_ = fs::canonical(::mkdtemp(pattern.data())).string();
    image_ = directory_ + "/disk.img";
    state_ = image_ + ".ckpt";
  }
  ~OpenVolumeTest() override { fs::remove_all(directory_); }

  static void make_file(const std::string& path) { std::ofstream(path) << "x"; }
  static void make_state(const std::string& path) {
    fs::create_directories(path);
    make_file(path + "/volume");
  }
  static void expect_found(const VolumeName& name, const std::string& image,
                           const std::string& state) {
    const auto paths = find_volume(name);
    ASSERT_TRUE(paths) << paths.error().message();
    EXPECT_EQ(paths->image, image);
    EXPECT_EQ(paths->state, state);
  }
  static void expect_none(const VolumeName& name) {
    const auto paths = find_volume(name);
    ASSERT_FALSE(paths) << paths->state;
    EXPECT_EQ(paths.error().kind, ErrorKind::kNotFound);
  }

  std::string directory_;
  std::string image_;
  std::string state_;
};

TEST_F(OpenVolumeTest, ByImage) {
  make_file(image_);
  make_state(state_);
  expect_found({image_}, image_, state_);
}

TEST_F(OpenVolumeTest, OfABackupdByItsName) {
  const std::string shelf = directory_ + "/shelf";
  const auto make_store = [&](const std::string& uuid, const std::string& name) {
    fs::create_directories(shelf + "/" + uuid);
    make_file(shelf + "/" + uuid + "/volume");
    make_file(shelf + "/" + uuid + "/backup.img");
    std::ofstream(shelf + "/" + uuid + "/name") << name << "\n";
  };
  make_store("11111111-1111-4111-8111-111111111111", "mail");
  make_store("22222222-2222-4222-8222-222222222222", "web");
  make_store("not-by-its-uuid", "else");
  const auto found = find_volume({shelf + "/web"});
  ASSERT_TRUE(found) << found.error().message();
  EXPECT_EQ(found->state, shelf + "/22222222-2222-4222-8222-222222222222");
  EXPECT_TRUE(found->is_store);
  expect_none({shelf + "/else"});
  expect_none({shelf + "/nobody"});
  expect_none({directory_ + "/no-shelf/mail"});
  make_store("33333333-3333-4333-8333-333333333333", "web");
  const auto both = find_volume({shelf + "/web"});
  ASSERT_FALSE(both);
  EXPECT_EQ(both.error().kind, ErrorKind::kBusy);
  EXPECT_NE(both.error().message().find("33333333-3333"), std::string::npos);
  // An image that is gone, and whose state is there, is meant itself.
  make_state(shelf + "/mail.ckpt");
  expect_found({shelf + "/mail"}, shelf + "/mail", shelf + "/mail.ckpt");
}

TEST_F(OpenVolumeTest, ByStateDirectory) {
  make_state(state_);
  expect_found({state_}, image_, state_);
  expect_found({state_ + "/"}, image_, state_);
}

TEST_F(OpenVolumeTest, ImageThatIsGone) {
  make_state(state_);
  expect_found({image_}, image_, state_);
}

TEST_F(OpenVolumeTest, StateElsewhere) {
  make_file(image_);
  make_state(directory_ + "/elsewhere");
  expect_none({image_});
  expect_found({image_, directory_ + "/elsewhere"}, image_, directory_ + "/elsewhere");
  expect_found({directory_ + "/elsewhere"}, "", directory_ + "/elsewhere");
}

TEST_F(OpenVolumeTest, BySymbolicLink) {
  make_file(image_);
  make_state(state_);
  fs::create_symlink(image_, directory_ + "/link");
  expect_found({directory_ + "/link"}, image_, state_);
  // A server that was given the link keeps its state beside the link.
  make_state(directory_ + "/link.ckpt");
  expect_found({directory_ + "/link"}, directory_ + "/link", directory_ + "/link.ckpt");
}

TEST_F(OpenVolumeTest, RelativePath) {
  make_state(state_);
  const fs::path before = fs::current_path();
  fs::current_path(directory_);
  expect_found({"disk.img"}, image_, state_);
  fs::current_path(before);
}

TEST_F(OpenVolumeTest, NothingThere) {
  expect_none({image_});
  expect_none({directory_});
  make_file(image_);
  expect_none({image_});
  fs::create_directories(state_);
  expect_none({image_});
  expect_none({image_, directory_ + "/none"});
}

TEST_F(OpenVolumeTest, ThroughTheServerWhereOneRuns) {
  make_state(state_);
  FakeVolume volume;
  const auto server = ControlServer::start(state_, volume);
  ASSERT_TRUE(server);
  const auto opened = open_volume({image_});
  ASSERT_TRUE(opened);
  EXPECT_TRUE(opened->served);
  EXPECT_EQ(opened->volume->status().image, "/srv/disk.img");
}

// ---- what is at a backupd

void expect_backup(const std::string& text, const std::string& address, const std::string& name) {
  const auto named = parse_backup_name(text);
  ASSERT_TRUE(named) << text;
  EXPECT_EQ(named->address.to_string(), address) << text;
  EXPECT_EQ(named->volume.is_nil() ? named->name : named->volume.to_string(), name) << text;
}

TEST_F(OpenVolumeTest, AtABackupdByUuidByNameOrAllOfIt) {
  const std::string uuid = "018f4d2c-0000-4000-8000-000000000001";
  expect_backup("host:7000", "host:7000", "");
  expect_backup("host:7000/" + uuid, "host:7000", uuid);
  expect_backup("[::1]:7000/accounts.img", "[::1]:7000", "accounts.img");
  const std::string socket = directory_ + "/socket";
  expect_backup("unix:" + socket, "unix:" + socket, "");  // it may come to be one
  const auto listener = listen_at({socket, "", ""}, Reach::kMachine);
  ASSERT_TRUE(listener);
  expect_backup("unix:" + socket, "unix:" + socket, "");
  expect_backup("unix:" + socket + "/accounts", "unix:" + socket, "accounts");
  expect_backup("unix:" + socket + "/" + uuid, "unix:" + socket, uuid);
  for (const std::string text : {"disk.img", "dir/disk.img", "host:7000/", "host:7000/..",
                                 "host:no/port", "a/host:7000/x\ny"}) {
    EXPECT_FALSE(parse_backup_name(text)) << text;
  }
  make_file(directory_ + "/x:7000");
  EXPECT_FALSE(parse_backup_name(directory_ + "/x:7000")) << "it is a file";
}

TEST_F(OpenVolumeTest, ABackupdByItselfIsNoVolume) {
  const auto paths = find_volume({"host:7000"});
  ASSERT_TRUE(paths);
  EXPECT_TRUE(paths->is_backupd());
  EXPECT_FALSE(find_volume({"host:7000/accounts"})->is_backupd());
  const auto opened = open_volume({"host:7000"});
  ASSERT_FALSE(opened);
  EXPECT_EQ(opened.error().kind, ErrorKind::kInvalid);
  EXPECT_NE(opened.error().message().find("ckpt-tool list host:7000"), std::string::npos);
}

TEST_F(OpenVolumeTest, OfflineNeedsToKnowTheImage) {
  make_state(directory_ + "/elsewhere");
  const auto opened = open_volume({directory_ + "/elsewhere"});
  ASSERT_FALSE(opened);
  EXPECT_EQ(opened.error().kind, ErrorKind::kInvalid);
  EXPECT_NE(opened.error().message().find("--state"), std::string::npos);
}

}  // namespace
}  // namespace ckpt
