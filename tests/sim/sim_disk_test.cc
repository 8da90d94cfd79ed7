// SPDX-License-Identifier: Apache-2.0
// The simulated disk: what a kill and a loss of power leave of it, space, holes, faults.
#include "tests/sim/sim_disk.h"

#include <gtest/gtest.h>

#include <set>

#include "tests/sim/scheduler.h"

namespace ckpt::sim {
namespace {

std::vector<std::byte> filled(size_t count, int value) {
  return std::vector<std::byte>(count, static_cast<std::byte>(value));
}

struct World {
  explicit World(uint64_t seed, DiskOptions options = {})
      : scheduler({.seed = seed}), disk(scheduler, std::move(options), SeededRandom(seed)) {}
  // A file that is durable, with this content.
  std::unique_ptr<File> durable_file(const std::string& name, ConstByteSpan content) {
    auto file = std::move(root->open(name, OpenMode::kCreate)).value();
    EXPECT_TRUE(file->write(0, content));
    EXPECT_TRUE(file->sync());
    EXPECT_TRUE(root->sync());
    return file;
  }
  Scheduler scheduler;
  SimDisk disk;
  std::unique_ptr<Directory> root = disk.root();
};

TEST(SimDiskTest, ReadsWhatWasWritten) {
  World world(1);
  const auto file = world.durable_file("f", filled(10000, 7));
  EXPECT_TRUE(file->write(4000, filled(200, 9)));
  std::vector<std::byte> bytes(10000);
  ASSERT_TRUE(file->read(0, bytes));
  EXPECT_EQ(bytes[3999], std::byte{7});
  EXPECT_EQ(bytes[4000], std::byte{9});
  EXPECT_EQ(bytes[4199], std::byte{9});
  EXPECT_EQ(bytes[4200], std::byte{7});
  EXPECT_EQ(file->size().value(), 10000U);
  EXPECT_EQ(file->read(9999, std::span(bytes).first(2)).error().kind, ErrorKind::kIo);
}

TEST(SimDiskTest, PowerLossKeepsWhatWasSynced) {
  for (uint64_t seed = 0; seed < 50; ++seed) {
    World world(seed);
    world.durable_file("f", filled(8192, 1));
    world.disk.power_loss();
    EXPECT_EQ(world.disk.cached("f"), filled(8192, 1));
  }
}

TEST(SimDiskTest, PowerLossLosesWhatWasNotSynced) {
  std::set<std::vector<std::byte>> outcomes;
  bool torn = false;
  for (uint64_t seed = 0; seed < 200; ++seed) {
    World world(seed);
    const auto file = world.durable_file("f", filled(8192, 1));
    ASSERT_TRUE(file->write(0, filled(4096, 2)));
    ASSERT_TRUE(file->write(0, filled(8192, 3)));
    EXPECT_EQ(world.disk.cached("f"), filled(8192, 3)) << "the cache has the last version";
    world.disk.power_loss();
    const std::vector<std::byte> content = world.disk.cached("f").value();
    for (size_t sector = 0; sector < 8192; sector += kSectorBytes) {
      torn = torn || (sector % kPageBytes != 0 && content[sector] != content[sector - 1]);
      for (size_t i = 1; i < kSectorBytes; ++i) {
        ASSERT_EQ(content[sector + i], content[sector]) << "a sector is written whole";
      }
    }
    outcomes.insert({content[0], content[4096]});
  }
  EXPECT_TRUE(torn);
  for (const int first : {1, 2, 3}) {
    for (const int second : {1, 3}) {
      EXPECT_TRUE(outcomes.contains({static_cast<std::byte>(first), static_cast<std::byte>(second)}))
          << first << second;
    }
  }
}

TEST(SimDiskTest, SizesAreLostToo) {
  std::set<size_t> grown;
  std::set<size_t> cut;
  for (uint64_t seed = 0; seed < 100; ++seed) {
    World world(seed);
    const auto file = world.durable_file("grown", filled(4096, 1));
    ASSERT_TRUE(file->write(4096, filled(3 * 4096, 2)));
    const auto other = world.durable_file("cut", filled(8192, 1));
    ASSERT_TRUE(other->resize(100));
    world.disk.power_loss();
    grown.insert(world.disk.cached("grown")->size());
    cut.insert(world.disk.cached("cut")->size());
  }
  EXPECT_TRUE(grown.contains(4096) && grown.contains(4 * 4096) && grown.size() > 2);
  EXPECT_TRUE(cut.contains(8192) && cut.contains(100));
}

TEST(SimDiskTest, EntriesThatWereNotSyncedGoInOrder) {
  std::set<std::vector<std::string>> outcomes;
  for (uint64_t seed = 0; seed < 100; ++seed) {
    World world(seed);
    world.durable_file("old", filled(1, 1));
    world.durable_file("gone", filled(1, 1));
    ASSERT_TRUE(world.root->open("new", OpenMode::kCreate));
    ASSERT_TRUE(world.root->rename("new", "old"));
    ASSERT_TRUE(world.root->remove("gone"));
    world.disk.power_loss();
    outcomes.insert(world.root->list().value());
    const bool renamed = world.disk.cached("old")->empty();
    EXPECT_EQ(renamed, !world.disk.cached("new") && world.disk.cached("old")->empty());
  }
  const std::set<std::vector<std::string>> expected{{"gone", "old"}, {"gone", "new", "old"}, {"old"}};
  EXPECT_EQ(outcomes, expected);
}

TEST(SimDiskTest, ASyncedDirectoryKeepsItsEntries) {
  for (uint64_t seed = 0; seed < 20; ++seed) {
    World world(seed);
    auto directory = std::move(world.root->subdirectory("d", true)).value();
    ASSERT_TRUE(directory->open("f", OpenMode::kCreate));
    ASSERT_TRUE(directory->sync());
    ASSERT_TRUE(world.root->sync());
    ASSERT_TRUE(directory->rename("f", "g"));
    ASSERT_TRUE(directory->sync());
    world.disk.power_loss();
    EXPECT_TRUE(world.disk.cached("d/g"));
    EXPECT_FALSE(world.disk.cached("d/f"));
  }
}

TEST(SimDiskTest, AFailedSyncIsToldOnceAndLoses) {
  int lost = 0;
  for (uint64_t seed = 0; seed < 50; ++seed) {
    World world(seed);
    world.durable_file("f", filled(4096, 1));
    NthFault fault({.operation = DiskOperation::kSync});
    world.disk.set_faults(&fault);
    auto file = std::move(world.root->open("f", OpenMode::kReadWrite)).value();
    ASSERT_TRUE(file->write(0, filled(4096, 2)));
    EXPECT_EQ(file->sync().error().kind, ErrorKind::kIo);
    EXPECT_FALSE(file->sync()) << "the handle's first failed sync is final";
    auto again = std::move(world.root->open("f", OpenMode::kReadWrite)).value();
    EXPECT_TRUE(again->sync()) << "as the system has it, the error is over";
    EXPECT_EQ(world.disk.cached("f"), filled(4096, 2));
    world.disk.power_loss();
    lost += world.disk.cached("f") != filled(4096, 2) ? 1 : 0;
    world.disk.set_faults(nullptr);
  }
  EXPECT_GT(lost, 5);
}

TEST(SimDiskTest, AKillKeepsTheCache) {
  World world(1);
  const ProcessId process = world.scheduler.new_process();
  world.scheduler.spawn(process, "victim", [&] {
    const auto file = world.disk.root()->open("f", OpenMode::kCreate);
    ASSERT_TRUE((*file)->write(0, filled(512, 5)));
    struct Writes {
      ~Writes() { EXPECT_FALSE(file->write(0, filled(512, 6))); }
      File* file;
    } const writes{file->get()};
    world.scheduler.sleep(std::chrono::seconds(9));
  });
  EXPECT_EQ(world.scheduler.run({.time = std::chrono::seconds(1)}), RunEnd::kTime);
  world.scheduler.kill(process);
  EXPECT_EQ(world.disk.cached("f"), filled(512, 5)) << "the dying write nothing";
  EXPECT_EQ(world.disk.durable("f")->size(), 0U);
}

TEST(SimDiskTest, AWriteInFlightMayLandAfterTheKill) {
  std::set<std::string> outcomes;
  for (uint64_t seed = 0; seed < 300; ++seed) {
    World world(seed);
    world.durable_file("f", filled(3 * 4096, 1));
    const ProcessId process = world.scheduler.new_process();
    world.scheduler.spawn(process, "victim", [&] {
      const auto file = world.disk.root()->open("f", OpenMode::kReadWrite);
      const Result<> result = (*file)->write(0, filled(3 * 4096, 2));
    });
    // The open, the write and its first interruption, if it comes to that.
    if (world.scheduler.run({.steps = 3}) == RunEnd::kDone) {
      continue;
    }
    world.scheduler.kill(process);
    const std::vector<std::byte> at_the_kill = world.disk.cached("f").value();
    world.disk.land_zombies();
    const std::vector<std::byte> after = world.disk.cached("f").value();
    outcomes.insert(at_the_kill == after ? "stopped" : "went on");
  }
  EXPECT_EQ(outcomes.size(), 2U);
}

TEST(SimDiskTest, HolesAndSpace) {
  World world(1, {.capacity_bytes = 5 * 4096});
  auto file = std::move(world.root->open("f", OpenMode::kCreate)).value();
  ASSERT_TRUE(file->resize(100 * 4096));
  EXPECT_EQ(world.disk.free_bytes(), 5U * 4096);
  ASSERT_TRUE(file->write(10 * 4096, filled(8192, 1)));
  EXPECT_EQ(file->next_data(0).value(), (ByteRange{10 * 4096, 8192}));
  EXPECT_EQ(file->next_data(12 * 4096).value(), std::nullopt);
  ASSERT_TRUE(file->allocate({20 * 4096, 3 * 4096}));
  EXPECT_EQ(file->next_data(12 * 4096).value(), std::nullopt) << "reserved, but nothing written";
  EXPECT_EQ(world.disk.free_bytes(), 0U);
  EXPECT_EQ(file->write(50 * 4096, filled(1, 1)).error().kind, ErrorKind::kNoSpace);
  EXPECT_TRUE(file->write(20 * 4096, filled(3 * 4096, 1))) << "it was reserved";
  ASSERT_TRUE(file->zero({10 * 4096, 4096}, true));
  ASSERT_TRUE(file->zero({20 * 4096, 4096}, false));
  EXPECT_EQ(world.disk.free_bytes(), 4096U) << "only a punch gives space back";
  EXPECT_EQ(file->next_data(0).value(), (ByteRange{11 * 4096, 4096}));
  ASSERT_TRUE(world.root->remove("f"));
  EXPECT_EQ(world.disk.free_bytes(), 4096U) << "it is still open";
  file.reset();
  EXPECT_EQ(world.disk.free_bytes(), 5U * 4096);
}

TEST(SimDiskTest, StampsTellFilesAndTheirStatesApart) {
  World world(1);
  const auto file = world.durable_file("f", filled(1, 1));
  const FileStamp before = file->stamp().value();
  world.scheduler.advance(std::chrono::seconds(1));
  ASSERT_TRUE(file->write(0, filled(1, 2)));
  const FileStamp after = file->stamp().value();
  EXPECT_TRUE(after.same_file(before));
  EXPECT_GT(after.modified, before.modified);
  EXPECT_GT(after.changed, before.changed);
  world.disk.replace("f", filled(1, 2));
  const auto replaced = std::move(world.root->open("f", OpenMode::kRead)).value();
  EXPECT_FALSE(replaced->stamp().value().same_file(before));
}

TEST(SimDiskTest, OpenModes) {
  World world(1);
  EXPECT_EQ(world.root->open("f", OpenMode::kRead).error().kind, ErrorKind::kNotFound);
  world.durable_file("f", filled(1, 1));
  EXPECT_FALSE(world.root->open("f", OpenMode::kCreate));
  const auto file = std::move(world.root->open("f", OpenMode::kRead)).value();
  EXPECT_FALSE(file->write(0, filled(1, 1)));
  EXPECT_EQ(world.root->subdirectory("d", false).error().kind, ErrorKind::kNotFound);
  EXPECT_EQ(world.root->remove("g").error().kind, ErrorKind::kNotFound);
}

}  // namespace
}  // namespace ckpt::sim
