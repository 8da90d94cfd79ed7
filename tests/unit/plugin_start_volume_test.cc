// SPDX-License-Identifier: Apache-2.0
// Starts of a volume, one after the other, on files that lose what was not synced.
#include <gtest/gtest.h>

#include "plugin/start.h"
#include "tests/unit/memory_directory.h"
#include "tests/unit/plugin_fakes.h"

namespace ckpt::test {
namespace {

constexpr uint64_t kImageBytes = 128 * kBlockBytes;

// One that knows its size.
class SizedFile : public HookedFile {
 public:
  using HookedFile::HookedFile;
  Result<FileStamp> stamp() override {
    FileStamp stamp;
    CKPT_ASSIGN(stamp.size_bytes, size());
    return stamp;
  }
};

// Starts the volume of the image; its UUID.
Result<Uuid> start_on(MemoryDisk& disk, FakeMemoryStore& memory) {
  const auto root = disk.root();
  CKPT_ASSIGN(auto file, root->open("image", OpenMode::kReadWrite));
  SizedFile image(std::move(file));
  CKPT_ASSIGN(const auto state, root->subdirectory("state", true));
  CKPT_TRY(root->sync());
  const Surroundings surroundings{image,           *state, memory, system_clock(),
                                  system_random(), "boot", {},     false};
  CKPT_ASSIGN(const StartedVolume started, start_volume(surroundings, {}));
  return started.record->get().volume;
}

void make_image(MemoryDisk& disk) {
  const auto root = disk.root();
  const auto image = root->open("image", OpenMode::kCreate);
  ASSERT_DONE(image);
  ASSERT_DONE((*image)->resize(kImageBytes));
  ASSERT_DONE((*image)->sync());
  ASSERT_DONE(root->sync());
}

// What it had done is in the cache, and the next start relies on it.
TEST(StartVolume, WhatAKilledStartLeftOutlivesAPowerLossAfterTheNextOne) {
  uint64_t found = 0;
  for (uint64_t at = 1;; ++at) {
    SCOPED_TRACE("killed at operation " + std::to_string(at));
    ASSERT_LT(at, 200U);
    MemoryDisk disk;
    FakeMemoryStore memory;
    ASSERT_NO_FATAL_FAILURE(make_image(disk));
    disk.stop_at(at);
    (void)start_on(disk, memory);
    if (!disk.has_stopped()) {
      break;
    }
    disk.restart_process();
    found += disk.snapshot().contains("state/volume") ? 1 : 0;
    const auto volume = start_on(disk, memory);
    ASSERT_DONE(volume);
    disk.lose_power(0);
    const auto again = start_on(disk, memory);
    ASSERT_DONE(again);
    EXPECT_EQ(*again, *volume);
  }
  EXPECT_GT(found, 3U);
}

}  // namespace
}  // namespace ckpt::test
