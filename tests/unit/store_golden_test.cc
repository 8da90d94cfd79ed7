// SPDX-License-Identifier: Apache-2.0
// A store written by this version, byte for byte: the worked example of docs/journal-format.md and
// docs/store-format.md. With CKPT_UPDATE_GOLDEN set the files are written anew.
#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <iterator>

#include "tests/unit/store_peer.h"

namespace ckpt::test {
namespace {

constexpr uint64_t kGoldenDiskBytes = 65536;
constexpr const char* kGoldenFiles[] = {"backup.img", "volume", "journal/00000000000000000002",
                                        "journal/00000000000000000003"};

// The file in the tree for one of the store's: a directory needs no twin there.
std::string golden_path(std::string name) {
  std::ranges::replace(name, '/', '-');
  return std::string(CKPT_GOLDEN_DIR) + "/store/" + name;
}

Content read_golden(const std::string& name) {
  std::ifstream file(golden_path(name), std::ios::binary);
  EXPECT_TRUE(file.is_open()) << golden_path(name);
  const std::string text((std::istreambuf_iterator<char>(file)), {});
  const ConstByteSpan bytes = as_bytes_of(text);
  return {bytes.begin(), bytes.end()};
}

void write_golden(const std::string& name, const Content& content) {
  std::ofstream file(golden_path(name), std::ios::binary | std::ios::trunc);
  for (const std::byte byte : content) {
    file.put(static_cast<char>(byte));
  }
  ASSERT_TRUE(file.good()) << golden_path(name);
}

// Checkpoint 1 is applied; 3, which covers epochs 2 (void) and 3, is confirmed only.
void make_golden(StorePeer& peer) {
  ASSERT_DONE(peer.open());
  ASSERT_DONE(peer.begin());
  ASSERT_DONE(peer.ship(1, {data(0, 1, kGoldenDiskBytes)}));
  ASSERT_DONE(peer.checkpoint(1));
  ASSERT_DONE(peer.store().finish_applying());
  ASSERT_DONE(peer.ship(2, {data(2, 1, kGoldenDiskBytes)}));
  ASSERT_DONE(peer.ship(3, {zeroes(0, 1, kGoldenDiskBytes), zeroes(8, 8, kGoldenDiskBytes)}));
  ASSERT_DONE(peer.checkpoint(3));
}

TEST(StoreGolden, WritesTheSameBytes) {
  MemoryDisk disk;
  StorePeer peer(disk, kGoldenDiskBytes);
  ASSERT_NO_FATAL_FAILURE(make_golden(peer));
  for (const char* name : kGoldenFiles) {
    if (std::getenv("CKPT_UPDATE_GOLDEN") != nullptr) {
      ASSERT_NO_FATAL_FAILURE(write_golden(name, disk.content(name)));
    }
    EXPECT_TRUE(disk.content(name) == read_golden(name)) << name;
  }
}

TEST(StoreGolden, ReadsThem) {
  MemoryDisk model_disk;
  StorePeer model(model_disk, kGoldenDiskBytes);
  ASSERT_NO_FATAL_FAILURE(make_golden(model));
  MemoryDisk disk;
  StorePeer peer(disk, kGoldenDiskBytes);
  ASSERT_DONE(peer.open());
  peer.close();
  auto journal = disk.root()->subdirectory("journal", false);
  ASSERT_DONE(journal);
  for (const char* name : {"00000000000000000002", "00000000000000000003"}) {
    ASSERT_DONE((*journal)->open(name, OpenMode::kCreate));
  }
  for (const char* name : kGoldenFiles) {
    disk.damage(name, [name](std::vector<std::byte>& bytes) { bytes = read_golden(name); });
  }
  ASSERT_DONE(peer.open());
  peer.last = model.last;
  peer.expect_exact();
}

}  // namespace
}  // namespace ckpt::test
