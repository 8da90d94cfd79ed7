// SPDX-License-Identifier: Apache-2.0
// The primary's record of itself and its saved map: to bytes and back, golden files, hostile bytes.
#include <gtest/gtest.h>

#include <cerrno>

#include "common/saved_map.h"
#include "plugin/volume_record.h"
#include "tests/unit/golden_file.h"
#include "tests/unit/plugin_fakes.h"

namespace ckpt::test {
namespace {

FileStamp stamp(uint64_t seed) {
  return {.device = seed,
          .inode = seed + 1,
          .birth = WallTime(static_cast<int64_t>(seed) + 2),
          .size_bytes = seed + 3,
          .modified = WallTime(static_cast<int64_t>(seed) + 4),
          .changed = WallTime(static_cast<int64_t>(seed) + 5)};
}

CheckpointInfo checkpoint(uint64_t number) {
  CheckpointInfo info;
  info.id = {uuid_of(2), {number}};
  info.parent = {uuid_of(2), {number - 1}};
  info.digest.bytes.fill(static_cast<uint8_t>(number));
  info.time = std::chrono::seconds(1769860800);
  info.name = "name " + std::to_string(number);
  info.message = "a message";
  info.changed_bytes = 4096 * number;
  info.shipped_bytes = 100 * number;
  return info;
}

// Every field is something that it is not by default.
VolumeRecord full_record() {
  VolumeRecord record;
  record.volume = uuid_of(1);
  record.size_bytes = 1 << 20U;
  record.region_bytes = 1 << 18U;
  record.timeline = uuid_of(2);
  record.forks = {{uuid_of(7), {3}}, {uuid_of(8), {9}}};
  record.last = checkpoint(11);
  record.intent = checkpoint(12);
  record.highest = {13};
  record.rollback = RollbackTarget{{uuid_of(2), {11}}, uuid_of(9), true};
  record.accepted = 14;
  record.offered = 15;
  record.clean = record.everything = record.suspect = record.fenced = record.had_clients = true;
  record.nonce = 16;
  record.boot_id = "boot";
  record.maps_name = "maps";
  record.saved_map.bytes.fill(17);
  record.image = stamp(20);
  record.self = stamp(30);
  record.store_place = "/backup";
  return record;
}

// The worked example: two checkpoints were made, the second is the last.
VolumeRecord example_record() {
  VolumeRecord record;
  record.volume = uuid_of(0x11);
  record.size_bytes = 1 << 20U;
  record.region_bytes = 1 << 18U;
  record.timeline = uuid_of(0x22);
  record.last = checkpoint(2);
  record.highest = {2};
  record.accepted = 5;
  record.offered = 6;
  record.boot_id = "b";
  record.maps_name = "m";
  record.image = stamp(0x100);
  record.self = stamp(0x200);
  return record;
}

bool same(const VolumeRecord& a, const VolumeRecord& b) {
  return encode_volume_record(a) == encode_volume_record(b);
}

TEST(VolumeRecord, AllFieldsComeBack) {
  const VolumeRecord sent = full_record();
  const auto found = decode_volume_record(encode_volume_record(sent));
  ASSERT_DONE(found);
  EXPECT_TRUE(same(*found, sent));
  EXPECT_EQ(found->volume, sent.volume);
  EXPECT_EQ(found->size_bytes, sent.size_bytes);
  EXPECT_EQ(found->region_bytes, sent.region_bytes);
  EXPECT_EQ(found->timeline, sent.timeline);
  EXPECT_EQ(found->forks, sent.forks);
  EXPECT_EQ(found->last->id, sent.last->id);
  EXPECT_EQ(found->intent->message, sent.intent->message);
  EXPECT_EQ(found->highest, sent.highest);
  EXPECT_EQ(found->rollback->checkpoint, sent.rollback->checkpoint);
  EXPECT_EQ(found->rollback->to, sent.rollback->to);
  EXPECT_TRUE(found->rollback->fence);
  EXPECT_EQ(found->accepted, 14U);
  EXPECT_EQ(found->offered, 15U);
  EXPECT_EQ(found->nonce, 16U);
  EXPECT_EQ(found->boot_id, "boot");
  EXPECT_EQ(found->maps_name, "maps");
  EXPECT_EQ(found->saved_map, sent.saved_map);
  EXPECT_EQ(found->image, sent.image);
  EXPECT_EQ(found->self, sent.self);
  EXPECT_EQ(found->store_place, "/backup");
}

TEST(VolumeRecord, EachFlagIsItsOwn) {
  using Flag = bool VolumeRecord::*;
  for (const Flag flag : {&VolumeRecord::clean, &VolumeRecord::everything, &VolumeRecord::suspect,
                          &VolumeRecord::fenced, &VolumeRecord::had_clients,
                          &VolumeRecord::superseded, &VolumeRecord::unplaced}) {
    VolumeRecord record = example_record();
    record.*flag = true;
    const auto found = decode_volume_record(encode_volume_record(record));
    ASSERT_DONE(found);
    EXPECT_TRUE((*found).*flag);
    const int set = found->clean + found->everything + found->suspect + found->fenced +
                    found->had_clients + found->superseded + found->unplaced;
    EXPECT_EQ(set, 1);
  }
}

TEST(VolumeRecord, WhatIsNotThereIsNotThere) {
  const auto found = decode_volume_record(encode_volume_record(example_record()));
  ASSERT_DONE(found);
  EXPECT_FALSE(found->intent);
  EXPECT_FALSE(found->rollback);
  EXPECT_TRUE(found->forks.empty());
}

// The slots' digest refuses these before; still none may crash, and none read past its end.
TEST(VolumeRecord, FlippedBitsAreErrorsOrOtherValues) {
  auto bytes = encode_volume_record(full_record());
  for (size_t bit = 0; bit < bytes.size() * 8; ++bit) {
    bytes[bit / 8] ^= std::byte{1} << (bit % 8);
    const auto found = decode_volume_record(bytes);
    EXPECT_TRUE(!found || !same(*found, full_record())) << bit;
    bytes[bit / 8] ^= std::byte{1} << (bit % 8);
  }
}

TEST(VolumeRecord, EveryOtherLengthIsRefused) {
  auto bytes = encode_volume_record(full_record());
  for (size_t length = 0; length < bytes.size(); ++length) {
    EXPECT_FALSE(decode_volume_record(ConstByteSpan(bytes).first(length))) << length;
  }
  bytes.emplace_back();
  EXPECT_FALSE(decode_volume_record(bytes));
}

TEST(VolumeRecord, ANewerVersionOrAFeatureIsSaidToBeNewer) {
  for (const size_t at : std::initializer_list<size_t>{0, 2}) {
    auto bytes = encode_volume_record(example_record());
    bytes[at] = std::byte{2};
    EXPECT_KIND(kInvalid, decode_volume_record(bytes));
  }
}

TEST(VolumeRecord, RegionsThatAreNoMultipleOf64BlocksAreRefused) {
  for (const uint64_t region_bytes : {uint64_t{0}, uint64_t{4096}, (uint64_t{1} << 18U) + 1}) {
    VolumeRecord record = example_record();
    record.region_bytes = region_bytes;
    EXPECT_KIND(kCorrupt, decode_volume_record(encode_volume_record(record)));
  }
}

TEST(VolumeRecord, TheLargestRecordFitsIntoASlot) {
  VolumeRecord record = full_record();
  record.forks.assign(1024, {uuid_of(3), {4}});
  for (auto* info : {&record.last, &record.intent}) {
    (*info)->name = std::string(255, 'n');
    (*info)->message = std::string(4096, 'm');
  }
  record.store_place = std::string(4096, 'p');
  const auto bytes = encode_volume_record(record);
  EXPECT_LE(bytes.size(), kSlotPayloadBytesMax);
  EXPECT_TRUE(decode_volume_record(bytes));
  record.forks.push_back({uuid_of(3), {4}});
  EXPECT_KIND(kCorrupt, decode_volume_record(encode_volume_record(record)));
}

class VolumeRecordFileTest : public testing::Test {
 protected:
  std::unique_ptr<VolumeRecordFile> create() {
    return std::move(*VolumeRecordFile::create(*directory_, example_record(), random_));
  }
  Result<std::unique_ptr<VolumeRecordFile>> open() {
    return VolumeRecordFile::open(*directory_, random_);
  }

  MemoryDisk machine_;
  std::unique_ptr<Directory> directory_ = machine_.root();
  FakeRandom random_;
};

TEST_F(VolumeRecordFileTest, AChangeIsDurableWhenItReturns) {
  const auto record = create();
  ASSERT_DONE(record->change([](VolumeRecord& r) { r.highest = {99}; }));
  EXPECT_EQ(record->get().highest, Epoch{99});
  machine_.lose_power(0);
  directory_ = machine_.root();
  const auto found = open();
  ASSERT_DONE(found);
  EXPECT_EQ((*found)->get().highest, Epoch{99});
}

TEST_F(VolumeRecordFileTest, EveryChangeHasANonceOfItsOwn) {
  const auto record = create();
  std::set<uint64_t> nonces{record->get().nonce};
  for (int i = 0; i < 5; ++i) {
    ASSERT_DONE(record->change([](VolumeRecord&) {}));
    EXPECT_TRUE(nonces.insert(record->get().nonce).second);
  }
}

TEST_F(VolumeRecordFileTest, TheObserverHearsBeforeAndAfterTheWrite) {
  const auto record = create();
  std::vector<std::string> heard;
  machine_.set_watcher([&](const MemoryOperation& operation) { heard.push_back(operation.act); });
  uint64_t prepared = 0;
  record->set_observer({[&](uint64_t nonce) {
                          prepared = nonce;
                          heard.emplace_back("prepare");
                        },
                        [&](uint64_t nonce) {
                          EXPECT_EQ(nonce, prepared);
                          heard.emplace_back("commit");
                        }});
  ASSERT_DONE(record->change([](VolumeRecord&) {}));
  EXPECT_EQ(heard,
            (std::vector<std::string>{"prepare", "write", "sync", "write", "sync", "commit"}));
  EXPECT_EQ(record->get().nonce, prepared);
  machine_.set_watcher(nullptr);
}

TEST_F(VolumeRecordFileTest, AFailedChangeLeavesTheOldRecordAndIsFinal) {
  const auto record = create();
  bool committed = false;
  record->set_observer({nullptr, [&](uint64_t) { committed = true; }});
  machine_.fail_operation(2, EIO);
  EXPECT_KIND(kIo, record->change([](VolumeRecord& r) { r.highest = {99}; }));
  EXPECT_EQ(record->get().highest, Epoch{2});
  EXPECT_FALSE(committed);
  EXPECT_KIND(kIo, record->change([](VolumeRecord&) {}));
}

TEST_F(VolumeRecordFileTest, TheOldestForkGoesWhenThereAreTooMany) {
  const auto record = create();
  for (uint64_t n = 1; n <= 1025; ++n) {
    if (n < 1024) {
      continue;
    }
    ASSERT_DONE(record->change([n](VolumeRecord& r) {
      while (r.forks.size() < n) {
        r.forks.push_back({uuid_of(3), {r.forks.size() + 1}});
      }
    }));
  }
  EXPECT_EQ(record->get().forks.size(), 1024U);
  EXPECT_EQ(record->get().forks.front().number, Epoch{2});
}

TEST_F(VolumeRecordFileTest, GoldenFile) {
  const auto record = create();
  ASSERT_DONE(record->change([](VolumeRecord& r) { r.fenced = true; }));
  expect_golden("volume/volume", machine_.content("volume"));
  expect_documented("volume-format.md", "volume/volume", 0x1a0);  // the first slot's payload ends
  machine_.content("volume") = read_golden("volume/volume");
  const auto found = open();
  ASSERT_DONE(found);
  EXPECT_TRUE((*found)->get().fenced);
  EXPECT_EQ((*found)->get().last->name, "name 2");
}

// Of a slot's bytes, those up to the last that is not zero.
size_t used_bytes_of(ConstByteSpan slot) {
  size_t used = slot.size();
  while (used > 0 && slot[used - 1] == std::byte{0}) {
    --used;
  }
  return used;
}

// With the bytes of the worked example: what is found is its newest generation, in every field.
TEST_F(VolumeRecordFileTest, AnyOneFlippedBitIsSurvived) {
  create();
  auto& bytes = machine_.content("volume");
  bytes = read_golden("volume/volume");
  const auto whole = open();
  ASSERT_DONE(whole);
  const VolumeRecord newest = (*whole)->get();
  const size_t slot_bytes = bytes.size() / 4;
  for (size_t slot = 0; slot < bytes.size(); slot += slot_bytes) {
    const size_t used = used_bytes_of(ConstByteSpan(bytes).subspan(slot, slot_bytes));
    ASSERT_GT(used, 300U) << "slot at " << slot;
    for (size_t bit = 0; bit < used * 8; ++bit) {
      bytes[slot + bit / 8] ^= std::byte{1} << (bit % 8);
      const auto found = open();
      ASSERT_DONE(found);
      ASSERT_TRUE(same((*found)->get(), newest)) << "slot at " << slot << ", bit " << bit;
      bytes[slot + bit / 8] ^= std::byte{1} << (bit % 8);
    }
  }
}

class SavedMapTest : public testing::Test {
 protected:
  static constexpr Geometry kGeometry{.size_bytes = 1 << 20U, .region_bytes = 1 << 18U};

  Digest save(const std::vector<BlockRange>& runs) {
    map_.clear();
    for (const BlockRange& run : runs) {
      map_.set(run);
    }
    const auto digest = save_map(*directory_, "saved-map", uuid_of(1), map_.runs(kSavedRunsMax));
    EXPECT_TRUE(digest) << digest.error().message();
    return *digest;
  }
  Result<std::vector<BlockRange>> load(const Digest& digest) {
    return load_map(*directory_, "saved-map", uuid_of(1), digest, kGeometry.blocks());
  }
  // The runs of a file with those bytes, whose digest is right.
  Result<std::vector<BlockRange>> load_forged(const std::vector<std::byte>& bytes) {
    machine_.content("saved-map") = bytes;
    return load(digest_of(bytes));
  }

  MemoryDisk machine_;
  std::unique_ptr<Directory> directory_ = machine_.root();
  MapMemory memory_{kGeometry.map_bytes()};
  ChangeMap map_{kGeometry, memory_.bytes()};
};

TEST_F(SavedMapTest, TheRunsComeBackAfterAPowerLoss) {
  const std::vector<BlockRange> runs{{0, 1}, {60, 64}, {64, 70}, {255, 256}};
  const Digest digest = save(runs);
  machine_.lose_power(0);
  directory_ = machine_.root();
  const auto found = load(digest);
  ASSERT_DONE(found);
  EXPECT_EQ(*found, runs);
}

TEST_F(SavedMapTest, AnEmptyMapIsSavedToo) {
  const auto found = load(save({}));
  ASSERT_DONE(found);
  EXPECT_TRUE(found->empty());
}

TEST_F(SavedMapTest, OneThatIsNotTheRecordedOneIsRefused) {
  const Digest first = save({{1, 2}});
  const Digest second = save({{3, 4}});
  EXPECT_KIND(kCorrupt, load(first));
  EXPECT_TRUE(load(second));
  EXPECT_KIND(kCorrupt, load_map(*directory_, "saved-map", uuid_of(2), second, kGeometry.blocks()));
  ASSERT_DONE(directory_->remove("saved-map"));
  EXPECT_KIND(kNotFound, load(second));
}

TEST_F(SavedMapTest, EveryFlippedBitIsRefused) {
  const Digest digest = save({{1, 2}, {64, 99}});
  auto& bytes = machine_.content("saved-map");
  for (size_t bit = 0; bit < bytes.size() * 8; ++bit) {
    bytes[bit / 8] ^= std::byte{1} << (bit % 8);
    EXPECT_KIND(kCorrupt, load(digest));
    bytes[bit / 8] ^= std::byte{1} << (bit % 8);
  }
  EXPECT_TRUE(load(digest));
}

TEST_F(SavedMapTest, RunsThatAreNotOnTheDiskAreRefused) {
  const uint64_t blocks = kGeometry.blocks();
  struct Run {
    uint64_t first;
    uint64_t count;
  };
  for (const Run& run : {Run{blocks, 1}, Run{blocks - 1, 2}, Run{0, UINT64_MAX}, Run{UINT64_MAX, 1},
                         Run{UINT64_MAX, UINT64_MAX}}) {
    save({{1, 2}});
    auto bytes = machine_.content("saved-map");
    Encoder encoder;
    encoder.put(run.first);
    encoder.put(run.count);
    std::copy(encoder.bytes().begin(), encoder.bytes().end(), bytes.begin() + 64);
    EXPECT_KIND(kCorrupt, load_forged(bytes));
  }
}

// A run of no blocks would be marked from a block to one before it.
TEST_F(SavedMapTest, AnEmptyRunIsRefused) {
  save({{1, 2}});
  auto bytes = machine_.content("saved-map");
  std::fill_n(bytes.begin() + 64, 16, std::byte{0});
  EXPECT_KIND(kCorrupt, load_forged(bytes));
}

TEST_F(SavedMapTest, ACountThatTheFileDoesNotHoldIsRefused) {
  for (const unsigned count : std::initializer_list<unsigned>{0, 2, 255}) {
    save({{1, 2}});
    auto bytes = machine_.content("saved-map");
    bytes[24] = static_cast<std::byte>(count);
    EXPECT_KIND(kCorrupt, load_forged(bytes));
  }
  auto bytes = machine_.content("saved-map");
  bytes.resize(63);
  EXPECT_KIND(kCorrupt, load_forged(bytes));
  EXPECT_KIND(kCorrupt, load_forged({}));
}

TEST_F(SavedMapTest, ACrashWhileSavingLeavesTheOldOrTheNew) {
  for (uint64_t seed = 0; seed < 8; ++seed) {
    bool saved = false;
    for (uint64_t step = 1; !saved; ++step) {
      ASSERT_LT(step, 30U);
      machine_ = MemoryDisk();
      directory_ = machine_.root();
      const Digest old = save({{1, 2}});
      map_.set({9, 10});
      machine_.stop_at(step);
      const auto digest = save_map(*directory_, "saved-map", uuid_of(1), map_.runs(kSavedRunsMax));
      saved = digest.has_value() && !machine_.has_stopped();
      machine_.lose_power(seed);
      directory_ = machine_.root();
      EXPECT_TRUE(saved ? load(*digest).has_value() : true);
      const bool new_there = digest && load(*digest);
      EXPECT_TRUE(load(old) || new_there || machine_.content("saved-map").size() == 96);
    }
  }
}

TEST_F(SavedMapTest, GoldenFile) {
  save({{1, 3}, {255, 256}});
  expect_golden("volume/saved-map", machine_.content("saved-map"));
  expect_documented("volume-format.md", "volume/saved-map");
  const auto found = load_forged(read_golden("volume/saved-map"));
  ASSERT_DONE(found);
  EXPECT_EQ(*found, (std::vector<BlockRange>{{1, 3}, {255, 256}}));
}

}  // namespace
}  // namespace ckpt::test
