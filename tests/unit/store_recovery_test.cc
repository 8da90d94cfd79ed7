// SPDX-License-Identifier: Apache-2.0
// A damaged store: a torn tail is dropped, corruption is refused and nothing is modified.
#include "tests/unit/store_peer.h"

namespace ckpt::test {
namespace {

constexpr char kFirst[] = "journal/00000000000000000001";
constexpr char kSecond[] = "journal/00000000000000000002";
constexpr char kThird[] = "journal/00000000000000000003";

// Two confirmed checkpoints that are not applied, the second over two epochs.
void make_store(StorePeer& peer) {
  ASSERT_DONE(peer.open());
  ASSERT_DONE(peer.begin());
  ASSERT_DONE(peer.ship(1, {zeroes(4, 3)}));
  ASSERT_DONE(peer.checkpoint(1));
  peer.compression = {Codec::kZstd, 1};  // small journals: every bit of them is tried
  ASSERT_DONE(peer.ship(2, {data(0, 1)}));
  ASSERT_DONE(peer.ship(3, {zeroes(9, 7)}));
  ASSERT_DONE(peer.checkpoint(3));
  peer.close();
}

// Opens a store that was damaged: it is right, or refused and as it was.
void expect_right_or_refused(MemoryDisk& disk, StorePeer& peer, uint64_t& refused) {
  const auto before = disk.snapshot();
  const auto last = peer.last;
  if (const auto opened = peer.open(); opened) {
    ASSERT_NO_FATAL_FAILURE(peer.expect_exact());
    ASSERT_EQ(peer.last->checkpoint.id, last->checkpoint.id);
  } else {
    ++refused;
    ASSERT_EQ(opened.error().kind, ErrorKind::kCorrupt) << opened.error().message();
    ASSERT_TRUE(disk.snapshot() == before);
  }
  peer.close();
}

void flip(std::vector<std::byte>& bytes, uint64_t bit) {
  bytes[bit / 8] ^= std::byte{1} << (bit % 8);
}

// Flips every step-th bit of a file, one at a time, as long as that is refused; returns the first
// bit that was not. A store that was refused is as it was, so it serves for the next bit.
uint64_t refused_flips(const std::string& path, uint64_t bits, uint64_t step) {
  MemoryDisk disk;
  StorePeer peer(disk);
  make_store(peer);
  uint64_t refused = 0;
  uint64_t bit = 0;
  for (; bit < bits && refused == bit / step; bit += step) {
    SCOPED_TRACE(path + ", bit " + std::to_string(bit));
    const auto flip_it = [bit](std::vector<std::byte>& bytes) { flip(bytes, bit); };
    disk.damage(path, flip_it);
    expect_right_or_refused(disk, peer, refused);
    disk.damage(path, flip_it);
  }
  return bit;
}

uint64_t bits_of(const std::string& path) {
  MemoryDisk disk;
  StorePeer peer(disk);
  make_store(peer);
  return disk.content(path).size() * 8;
}

TEST(StoreRecovery, EveryFlippedBitOfAJournalIsRefused) {
  const uint64_t bits = bits_of(kThird);
  EXPECT_GE(refused_flips(kThird, bits, 1), bits);
  for (const char* path : {kFirst, kSecond}) {
    EXPECT_GE(refused_flips(path, bits_of(path), 7), bits_of(path));
  }
}

TEST(StoreRecovery, FlippedBitsOfTheRecordAreSurvived) {
  // Each of the four copies: its header bit by bit, content and padding here and there.
  uint64_t refused = 0;
  for (uint64_t copy = 0; copy < 4; ++copy) {
    for (uint64_t bit = 0; bit < 65536 * 8; bit += bit < 64 * 8 ? 1 : (bit < 600 * 8 ? 7 : 8191)) {
      SCOPED_TRACE("copy " + std::to_string(copy) + ", bit " + std::to_string(bit));
      MemoryDisk disk;
      StorePeer peer(disk);
      make_store(peer);
      disk.damage("volume",
                  [&](std::vector<std::byte>& bytes) { flip(bytes, copy * 65536 * 8 + bit); });
      ASSERT_NO_FATAL_FAILURE(expect_right_or_refused(disk, peer, refused));
    }
  }
  EXPECT_EQ(refused, 0U);
}

TEST(StoreRecovery, BothCopiesOfAGenerationDamagedIsRefused) {
  MemoryDisk disk;
  StorePeer peer(disk);
  make_store(peer);
  disk.damage("volume", [](std::vector<std::byte>& bytes) {
    flip(bytes, 100);
    flip(bytes, 65536 * 8 + 100);
  });
  uint64_t refused = 0;
  expect_right_or_refused(disk, peer, refused);
  EXPECT_EQ(refused, 1U);
}

TEST(StoreRecovery, JournalCutOffAnywhereIsRefused) {
  for (const std::string path : {kFirst, kSecond, kThird}) {
    MemoryDisk disk;
    StorePeer peer(disk);
    make_store(peer);
    const Content whole = disk.content(path);
    uint64_t refused = 0;
    for (uint64_t kept = 0; kept < whole.size(); ++kept) {
      SCOPED_TRACE(path + ", cut to " + std::to_string(kept));
      disk.damage(path, [&](std::vector<std::byte>& bytes) {
        bytes.assign(whole.begin(), whole.begin() + static_cast<ptrdiff_t>(kept));
      });
      ASSERT_NO_FATAL_FAILURE(expect_right_or_refused(disk, peer, refused));
      ASSERT_EQ(refused, kept + 1);
    }
  }
}

TEST(StoreRecovery, ErrorNamesFileAndOffset) {
  MemoryDisk disk;
  StorePeer peer(disk);
  make_store(peer);
  disk.damage(kFirst, [](std::vector<std::byte>& bytes) { flip(bytes, 8 * 200); });
  const auto opened = peer.open();
  ASSERT_FALSE(opened);
  EXPECT_NE(opened.error().context.find(kFirst), std::string::npos) << opened.error().context;
  EXPECT_NE(opened.error().context.find("offset 128"), std::string::npos) << opened.error().context;
}

TEST(StoreRecovery, TornTailAtEveryByteIsDropped) {
  // An epoch that no checkpoint covers, and one whose confirm record is written but not in
  // `volume`.
  MemoryDisk whole;
  StorePeer model(whole);
  make_store(model);
  ASSERT_DONE(model.open());
  ASSERT_DONE(model.begin());
  ASSERT_DONE(model.ship(4, {zeroes(0, 2)}));
  whole.set_watcher([&whole](const MemoryOperation& operation) {
    if (operation.path == "volume") {
      whole.stop_at(1);
    }
  });
  ASSERT_FALSE(model.checkpoint(4));
  const Content tail = whole.content("journal/00000000000000000004");
  ASSERT_GT(tail.size(), 600U);
  for (uint64_t kept = 0; kept <= tail.size(); ++kept) {
    SCOPED_TRACE("kept " + std::to_string(kept));
    MemoryDisk disk;
    StorePeer peer(disk);
    make_store(peer);
    auto journal = disk.root()->subdirectory("journal", false);
    ASSERT_DONE(journal);
    ASSERT_DONE((*journal)->open("00000000000000000004", OpenMode::kCreate));
    disk.damage("journal/00000000000000000004", [&](std::vector<std::byte>& bytes) {
      bytes.assign(tail.begin(), tail.begin() + static_cast<ptrdiff_t>(kept));
    });
    ASSERT_DONE(peer.open());
    ASSERT_NO_FATAL_FAILURE(peer.expect_exact());
    EXPECT_FALSE(disk.snapshot().contains("journal/00000000000000000004"));
  }
}

TEST(StoreRecovery, MissingFilesAreRefused) {
  for (const std::string name : {"backup.img", "journal/00000000000000000001",
                                 "journal/00000000000000000002", "journal/00000000000000000003"}) {
    SCOPED_TRACE(name);
    MemoryDisk disk;
    StorePeer peer(disk);
    make_store(peer);
    const size_t slash = name.find('/');
    if (slash == std::string::npos) {
      ASSERT_DONE(disk.root()->remove(name));
    } else {
      auto journal = disk.root()->subdirectory("journal", false);
      ASSERT_DONE((*journal)->remove(name.substr(slash + 1)));
    }
    const auto before = disk.snapshot();
    EXPECT_KIND(kCorrupt, peer.open());
    EXPECT_EQ(disk.snapshot(), before);
  }
}

TEST(StoreRecovery, ImageOfAnotherSizeIsRefused) {
  MemoryDisk disk;
  StorePeer peer(disk);
  make_store(peer);
  disk.damage("backup.img", [](std::vector<std::byte>& bytes) { bytes.resize(4096); });
  EXPECT_KIND(kCorrupt, peer.open());
}

TEST(StoreRecovery, JournalOfAnotherVolumeIsRefused) {
  MemoryDisk disk;
  StorePeer peer(disk);
  make_store(peer);
  const JournalHeader header{test_uuid(0x44), peer.timeline, {1}, peer.incarnation};
  disk.damage(kFirst, [&](std::vector<std::byte>& bytes) {
    const auto encoded = encode_journal_header(header);
    std::copy(encoded.begin(), encoded.end(), bytes.begin());
  });
  EXPECT_KIND(kCorrupt, peer.open());
}

TEST(StoreRecovery, ValidJournalOfAnotherHistoryIsRefused) {
  MemoryDisk other_disk;
  StorePeer other(other_disk);
  other.next_sequence = 50;
  make_store(other);
  for (const char* path : {kFirst, kSecond, kThird}) {
    SCOPED_TRACE(path);
    MemoryDisk disk;
    StorePeer peer(disk);
    make_store(peer);
    disk.damage(path, [&](std::vector<std::byte>& bytes) { bytes = other_disk.content(path); });
    EXPECT_KIND(kCorrupt, peer.open());
  }
}

TEST(StoreRecovery, FilesThatAreNotOursStay) {
  MemoryDisk disk;
  StorePeer peer(disk);
  make_store(peer);
  auto journal = disk.root()->subdirectory("journal", false);
  ASSERT_DONE((*journal)->open("notes.txt", OpenMode::kCreate));
  ASSERT_DONE(peer.open());
  peer.expect_exact();
  EXPECT_TRUE(disk.snapshot().contains("journal/notes.txt"));
}

}  // namespace
}  // namespace ckpt::test
