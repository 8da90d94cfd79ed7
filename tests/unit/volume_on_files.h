// SPDX-License-Identifier: Apache-2.0
// A volume on real files in a folder of its own, as servers that have ended leave it.
#pragma once

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/file.h>

#include <filesystem>
#include <fstream>
#include <functional>
#include <map>
#include <memory>
#include <sstream>
#include <string>

#include "common/clock.h"
#include "plugin/local_volume.h"
#include "plugin/volume_record.h"

namespace ckpt::test {

class VolumeOnFiles {
 public:
  static constexpr uint64_t kSizeBytes = 16 * kBlockBytes;

  VolumeOnFiles() {
    std::string pattern = testing::TempDir() + "volume-XXXXXX";
    folder = std::filesystem::canonical(::mkdtemp(pattern.data())).string();
    image = folder + "/disk.img";
    state = image + ".ckpt";
    store = state + "/store";
  }
  ~VolumeOnFiles() { std::filesystem::remove_all(folder); }
  VolumeOnFiles(const VolumeOnFiles&) = delete;
  VolumeOnFiles& operator=(const VolumeOnFiles&) = delete;

  // A server, while the act takes; it makes the image if there is none, and stops cleanly.
  void serve(const std::function<void(Volume&)>& act) const {
    const auto local = open();
    ASSERT_NE(local, nullptr);
    local->start_pumps();
    act(local->volume());
    const auto closed = local->close();
    EXPECT_TRUE(closed) << closed.error().message();
  }
  // The same, but it is killed.
  void serve_and_kill(const std::function<void(Volume&)>& act) const {
    const auto local = open();
    ASSERT_NE(local, nullptr);
    local->start_pumps();
    act(local->volume());
  }
  // The whole disk holds `before`, at checkpoint "first"; then its first block is written over.
  void serve_checkpoint_and_write(char before, char after) const {
    serve([&](Volume& volume) {
      write(volume, 0, std::string(kSizeBytes, before));
      make_checkpoint(volume, "first");
      write(volume, 0, std::string(kBlockBytes, after));
    });
  }

  static void write(Volume& volume, uint64_t offset, const std::string& text) {
    const auto client = volume.gate().connect();
    ASSERT_TRUE(client) << client.error().message();
    const auto written = volume.write(**client, offset, std::as_bytes(std::span(text)), false);
    EXPECT_TRUE(written) << written.error().message();
    volume.gate().disconnect(*client);
  }
  static void make_checkpoint(Volume& volume, const std::string& name) {
    CheckpointRequest request;
    request.name = name;
    const auto made = volume.checkpoint(request);
    ASSERT_TRUE(made) << made.error().message();
  }
  void change_record(const std::function<void(VolumeRecord&)>& edit) const {
    const auto directory = PosixDirectory::open(state, false, RingUse{});
    ASSERT_TRUE(directory);
    const auto file = VolumeRecordFile::open(**directory, system_random());
    ASSERT_TRUE(file);
    ASSERT_TRUE((*file)->change(edit));
  }
  [[nodiscard]] VolumeRecord record() const {
    const auto directory = PosixDirectory::open(state, false, RingUse{});
    return (*VolumeRecordFile::open(**directory, system_random()))->get();
  }

  static std::string content(const std::string& path) {
    std::ostringstream text;
    text << std::ifstream(path, std::ios::binary).rdbuf();
    return text.str();
  }
  // All files: their path, content and time of modification.
  [[nodiscard]] std::map<std::string, std::string> everything() const {
    std::map<std::string, std::string> files;
    for (const auto& entry : std::filesystem::recursive_directory_iterator(folder)) {
      if (entry.is_regular_file()) {
        const auto time = entry.last_write_time().time_since_epoch().count();
        files[entry.path()] = std::to_string(time) + " " + content(entry.path());
      }
    }
    return files;
  }
  // As whoever uses a file or folder does; as long as what is returned lives.
  static UniqueFd locked(const std::string& path) {
    UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
    EXPECT_EQ(::flock(fd.get(), LOCK_EX | LOCK_NB), 0) << path;
    return fd;
  }

  std::string folder;
  std::string image;
  std::string state;
  std::string store;  // before the first server: where its back-up is to be

 private:
  [[nodiscard]] std::unique_ptr<LocalVolume> open() const {
    LocalOptions options;
    options.image_path = image;
    options.create_bytes = kSizeBytes;
    options.store_place = store == state + "/store" ? "" : store;
    options.is_place_said = true;
    auto local = LocalVolume::open(options);
    EXPECT_TRUE(local) << local.error().message();
    return local ? std::move(*local) : nullptr;
  }
};

}  // namespace ckpt::test
