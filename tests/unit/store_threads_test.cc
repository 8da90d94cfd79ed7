// SPDX-License-Identifier: Apache-2.0
// A session, an applier and readers at once, on a real file system: for the thread sanitizer, and
// for one promise that only threads can break: a read never sees a mixture of two checkpoints.
#include <atomic>
#include <cstdlib>
#include <filesystem>
#include <thread>

#include "common/posix_file.h"
#include "tests/unit/memory_sink.h"
#include "tests/unit/store_peer.h"

namespace ckpt::test {
namespace {

constexpr uint64_t kDiskBlocks = 1024;  // an export takes it in four pieces
constexpr uint64_t kDiskBytes = kDiskBlocks * kBlockBytes;
constexpr uint64_t kCheckpoints = 60;

// A directory that is gone at the end.
class ScratchDirectory {
 public:
  ScratchDirectory() {
    std::string name = (std::filesystem::temp_directory_path() / "store-test-XXXXXX").string();
    path_ = mkdtemp(name.data());
  }
  ~ScratchDirectory() { std::filesystem::remove_all(path_); }
  ScratchDirectory(const ScratchDirectory&) = delete;
  ScratchDirectory& operator=(const ScratchDirectory&) = delete;
  [[nodiscard]] const std::string& path() const { return path_; }

 private:
  std::string path_;
};

// Stands still, or lets an hour pass from look to look.
class TestClock : public Clock {
 public:
  [[nodiscard]] SteadyTime steady() const override {
    return SteadyTime(is_running ? std::chrono::hours(++looks_) : std::chrono::hours(looks_));
  }
  [[nodiscard]] WallTime wall() const override { return {}; }
  std::atomic<bool> is_running{false};

 private:
  mutable std::atomic<int> looks_{0};
};

Result<std::unique_ptr<Store>> open_store(const std::string& path, uint64_t unapplied_bytes_max,
                                          const Clock* clock = nullptr) {
  CKPT_ASSIGN(auto directory, PosixDirectory::open(path, true, {}));
  return Store::open(std::move(directory),
                     {test_uuid(0x11), kDiskBytes, "embedded", unapplied_bytes_max, clock});
}

// Every byte of the disk becomes the checkpoint's number; zeroes for every fifth.
Result<> ship_and_confirm(Store& store, uint64_t number, std::optional<CheckpointInfo>& last) {
  BatchHeader identity;
  identity.volume = test_uuid(0x11);
  identity.timeline = test_uuid(0x22);
  identity.epoch = {number};
  identity.incarnation = 7;
  CoveredEpoch covered{{number}, {}};
  for (uint64_t half = 0; half < 2; ++half) {
    identity.sequence = number * 2 + half;
    Extent extent = data(half * kDiskBlocks / 2, kDiskBlocks / 2, kDiskBytes);
    Content bytes(extent.length, static_cast<std::byte>(number));
    if (number % 5 == 0) {
      extent.kind = ExtentKind::kZero;
      bytes.clear();
    }
    const EncodedBatch batch = encode_batch(identity, {extent}, bytes, {});
    covered.chain = chain(covered.chain, batch.header);
    CKPT_TRY(store.receive(batch));
  }
  CheckpointInfo checkpoint;
  checkpoint.id = {identity.timeline, {number}};
  checkpoint.parent = last ? last->id : CheckpointId{};
  checkpoint.digest =
      checkpoint_digest(last ? last->digest : Digest{}, identity.timeline, {number}, {covered});
  CKPT_TRY(store.confirm({checkpoint, {covered}}));
  last = checkpoint;
  return {};
}

// Of one checkpoint: the last that was listed, or a later one.
void expect_uniform(Store& store) {
  const auto kept = store.checkpoints();
  const uint64_t listed = kept && !kept->empty() ? kept->back().id.number.value : 0;
  Content content(kDiskBytes);
  const auto read = store.read_confirmed(0, content);
  if (!read) {
    EXPECT_EQ(read.error().kind, ErrorKind::kNotFound) << read.error().message();
    return;
  }
  EXPECT_TRUE(content == Content(kDiskBytes, content[0]));
  const auto number = std::to_integer<uint64_t>(content[0]);
  EXPECT_TRUE(number == 0 || number >= listed) << number << ", and " << listed << " was listed";
}

TEST(StoreThreads, ReadersNeverSeeAMixture) {
  const ScratchDirectory scratch;
  auto store = open_store(scratch.path(), 32 * kBlockBytes);
  ASSERT_DONE(store);
  ASSERT_DONE((*store)->begin_session());
  ASSERT_DONE((*store)->accept(7));
  std::atomic<bool> stop = false;
  std::atomic<uint64_t> told = 0;
  (*store)->set_work_listener([&told] { ++told; });
  std::thread applier([&] {
    while (!stop) {
      EXPECT_TRUE((*store)->apply_some());
      std::this_thread::yield();
    }
  });
  std::thread reader([&] {
    while (!stop) {
      expect_uniform(**store);
      EXPECT_TRUE((*store)->next_confirmed_data(0) || (*store)->checkpoints()->empty());
    }
  });
  std::thread watcher([&] {
    while (!stop) {
      const StoreStatus status = (*store)->status();
      EXPECT_EQ(status.state, "connected") << status.error;
      EXPECT_LE(status.applied, status.confirmed ? status.confirmed->id.number : Epoch{});
    }
  });
  std::optional<CheckpointInfo> last;
  for (uint64_t number = 1; number <= kCheckpoints; ++number) {
    const auto confirmed = ship_and_confirm(**store, number, last);
    EXPECT_TRUE(confirmed) << confirmed.error().message();
  }
  stop = true;
  applier.join();
  reader.join();
  watcher.join();
  EXPECT_EQ(told, kCheckpoints);
  store->reset();
  store = open_store(scratch.path(), 32 * kBlockBytes);
  ASSERT_DONE(store);
  EXPECT_EQ((*store)->status().confirmed->id.number, Epoch{kCheckpoints});
  expect_uniform(**store);
}

TEST(StoreThreads, ReserveIsGivenUpFromAnotherThread) {
  const ScratchDirectory scratch;
  auto store = open_store(scratch.path(), 32 * kBlockBytes);
  ASSERT_DONE(store);
  std::atomic<bool> stop = false;
  std::thread writer([&] {
    while (!stop) {
      EXPECT_TRUE((*store)->free_reserve());
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
  });
  std::thread applier([&] {
    while (!stop) {
      EXPECT_TRUE((*store)->apply_some());
    }
  });
  std::optional<CheckpointInfo> last;
  for (uint64_t number = 1; number <= kCheckpoints; ++number) {
    EXPECT_TRUE((*store)->begin_session());
    // May be cut short at any point.
    Result<> confirmed = (*store)->accept(7);
    if (confirmed) {
      confirmed = ship_and_confirm(**store, number, last);
    }
    if (!confirmed) {
      EXPECT_EQ(confirmed.error().kind, ErrorKind::kNoSpace) << confirmed.error().message();
    }
    expect_uniform(**store);
  }
  stop = true;
  writer.join();
  applier.join();
  expect_uniform(**store);
}

// A store whose checkpoints are made by one thread and applied by another.
class ExportThreads : public ::testing::Test {
 protected:
  void SetUp() override {
    auto store =
        open_store(scratch_.path(), 1, &clock_);  // making a checkpoint helps to apply the last
    ASSERT_DONE(store);
    store_ = std::move(*store);
    ASSERT_DONE(store_->begin_session());
    ASSERT_DONE(store_->accept(7));
    ASSERT_DONE(ship_and_confirm(*store_, 1, last_));
    applier_ = std::thread([this] {
      while (!stop_) {
        EXPECT_TRUE(store_->apply_some());
        std::this_thread::yield();
      }
    });
  }
  void TearDown() override { stop_applier(); }
  void stop_applier() {
    stop_ = true;
    if (applier_.joinable()) {
      applier_.join();
    }
  }
  // Returns when its sink has been given something.
  void start_slow_export() {
    slow_.on_take = [this](ByteRange) -> Result<> {
      begun_ = true;
      std::this_thread::sleep_for(std::chrono::milliseconds(200));
      return {};
    };
    exporter_ = std::thread([this] { exported_ = store_->export_checkpoint(std::nullopt, slow_); });
    while (!begun_) {
      std::this_thread::yield();
    }
  }
  void make_checkpoints(uint64_t count) {
    const uint64_t first = last_->id.number.value + 1;
    for (uint64_t number = first; number < first + count; ++number) {
      EXPECT_TRUE(ship_and_confirm(*store_, number, last_));
    }
  }

  TestClock clock_;
  const ScratchDirectory scratch_;
  std::unique_ptr<Store> store_;
  std::optional<CheckpointInfo> last_;
  std::atomic<bool> stop_ = false;
  std::thread applier_;
  MemorySink slow_;
  std::atomic<bool> begun_ = false;
  Result<> exported_;
  std::thread exporter_;
};

TEST_F(ExportThreads, AnExportIsOfOneCheckpoint) {
  std::thread exporter([this] {
    while (!stop_) {
      MemorySink sink;
      const auto exported = store_->export_checkpoint(std::nullopt, sink);
      ASSERT_TRUE(exported) << exported.error().message();
      const uint64_t number = sink.checkpoint->id.number.value;
      const auto byte = static_cast<std::byte>(number % 5 == 0 ? 0 : number);
      EXPECT_TRUE(sink.has_all());
      EXPECT_TRUE(sink.content == Content(kDiskBytes, byte)) << number;
    }
  });
  make_checkpoints(kCheckpoints);
  stop_ = true;
  exporter.join();
}

// What is not handed over yet is, by the applier, before it changes.
TEST_F(ExportThreads, LaterCheckpointsAreAppliedMeanwhile) {
  MemorySink sink;
  std::atomic<bool> is_slow = true;
  sink.on_take = [&is_slow](ByteRange range) -> Result<> {
    is_slow = false;
    if (range.offset == 0) {
      std::this_thread::sleep_for(std::chrono::milliseconds(50));
    }
    return {};
  };
  std::thread exporter([&] { EXPECT_TRUE(store_->export_checkpoint(std::nullopt, sink)); });
  while (is_slow) {
    std::this_thread::yield();
  }
  make_checkpoints(3);
  exporter.join();
  EXPECT_TRUE(sink.has_all());
  EXPECT_TRUE(sink.content == Content(kDiskBytes, std::byte{1}));
}

// The applier waits for the sink, and a checkpoint for the applier.
TEST_F(ExportThreads, ACheckpointDoesNotWaitForASlowExport) {
  clock_.is_running = true;
  start_slow_export();
  make_checkpoints(3);
  exporter_.join();
  EXPECT_KIND(kBusy, exported_);
  MemorySink again;
  EXPECT_TRUE(store_->export_checkpoint(std::nullopt, again));
}

TEST_F(ExportThreads, ARollbackDoesNotWaitForASlowExport) {
  clock_.is_running = true;
  stop_applier();
  start_slow_export();
  make_checkpoints(1);
  EXPECT_TRUE(store_->roll_back(last_->id, test_uuid(0x33)));
  exporter_.join();
  EXPECT_KIND(kBusy, exported_);
}

}  // namespace
}  // namespace ckpt::test
