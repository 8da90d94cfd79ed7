// SPDX-License-Identifier: Apache-2.0
// A volume in this process under 16 threads that overlap almost always, with checkpoints, status,
// verification and rollbacks beside them: what ThreadSanitizer is to look at, without nbdkit. Every
// rollback is compared with what was read at its checkpoint.
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <random>
#include <thread>

#include "plugin/local_volume.h"

namespace ckpt {
namespace {

namespace fs = std::filesystem;

constexpr uint64_t kDiskBytes = (uint64_t{16} << 20U) + 1000;
constexpr uint64_t kHotBytes = uint64_t{1} << 20U;
constexpr uint64_t kRequestBytesMax = uint64_t{256} << 10U;
constexpr int kThreads = 16;
constexpr int kRounds = 3;
constexpr int kCheckpointsARound = 5;

// How long the threads of this process with that name have run.
std::chrono::nanoseconds ran(const std::string& name) {
  uint64_t total = 0;
  for (const auto& thread : fs::directory_iterator("/proc/self/task")) {
    std::string comm;
    uint64_t ran_ns = 0;
    std::ifstream(thread.path() / "comm") >> comm;
    std::ifstream(thread.path() / "schedstat") >> ran_ns;
    total += comm == name ? ran_ns : 0;
  }
  return std::chrono::nanoseconds(total);
}

const Progress kGoOn = [](uint64_t, uint64_t) { return true; };

// Writes, zeroes and trims until it is told to stop; nine of ten in the first MiB.
class Writer {
 public:
  Writer(Volume& volume, uint64_t seed, const std::atomic<bool>& stop)
      : volume_(volume), client_(*volume.gate().connect()), random_(seed), stop_(stop) {}
  ~Writer() { volume_.gate().disconnect(client_); }
  Writer(const Writer&) = delete;
  Writer& operator=(const Writer&) = delete;

  void run() {
    std::vector<std::byte> buffer(kRequestBytesMax);
    while (!stop_.load() && !failed_) {
      const ByteRange range = draw();
      const uint64_t what = random_() % 10;
      const Result<> done = what < 6 ? write(range, buffer) : other(what, range, buffer);
      EXPECT_TRUE(done) << done.error().message();
      failed_ = !done;
      ++requests;
    }
  }
  uint64_t requests = 0;

 private:
  ByteRange draw() {
    const uint64_t within = random_() % 10 != 0 ? kHotBytes : kDiskBytes;
    const uint64_t offset = random_() % within;
    const uint64_t length = 1 + (random_() % kRequestBytesMax >> random_() % 18);
    return {offset, std::min(length, within - offset)};
  }
  Result<> write(ByteRange range, std::vector<std::byte>& buffer) {
    const ByteSpan bytes = std::span(buffer).first(range.length);
    std::ranges::fill(bytes, static_cast<std::byte>(random_()));
    return volume_.write(*client_, range.offset, bytes, random_() % 50 == 0);
  }
  Result<> other(uint64_t what, ByteRange range, std::vector<std::byte>& buffer) {
    if (what < 9) {
      return volume_.zero(*client_, range, what == 8, false);
    }
    return volume_.read(*client_, range.offset, std::span(buffer).first(range.length));
  }

  Volume& volume_;
  std::shared_ptr<Client> client_;
  std::mt19937_64 random_;
  const std::atomic<bool>& stop_;
  bool failed_ = false;
};

class RaceTest : public testing::TestWithParam<IoMode> {
 protected:
  RaceTest() {
    std::string pattern = testing::TempDir() + "race-XXXXXX";
    folder_ = ::mkdtemp(pattern.data());
    options_.image_path = folder_ + "/disk.img";
    options_.create_bytes = kDiskBytes;
    options_.io = GetParam();
    options_.volume.clients.multi_conn = true;
    options_.volume.ship.batch_bytes = uint64_t{256} << 10U;
    options_.volume.ship.batch_delay = std::chrono::milliseconds(5);
  }
  ~RaceTest() override { fs::remove_all(folder_); }

  void open() {
    auto local = LocalVolume::open(options_);
    ASSERT_TRUE(local) << local.error().message();
    local_ = std::move(*local);
    local_->start_pumps();
  }
  Volume& volume() { return local_->volume(); }

  void begin_load(uint64_t seed) {
    stop_ = false;
    for (uint64_t i = 0; i < kThreads; ++i) {
      writers_.push_back(std::make_unique<Writer>(volume(), seed * 100 + i, stop_));
      threads_.emplace_back(&Writer::run, writers_.back().get());
    }
  }
  void end_load() {
    stop_ = true;
    for (std::thread& thread : threads_) {
      thread.join();
    }
    for (const auto& writer : writers_) {
      EXPECT_GT(writer->requests, 0U);
    }
    threads_.clear();
    writers_.clear();
  }
  void checkpoint() {
    const auto made = volume().checkpoint({});
    EXPECT_TRUE(made) << made.error().message();
  }
  std::vector<std::byte> content() {
    const auto client = *volume().gate().connect();
    std::vector<std::byte> bytes(kDiskBytes);
    EXPECT_TRUE(volume().read(*client, 0, bytes));
    volume().gate().disconnect(client);
    return bytes;
  }
  // What others do meanwhile.
  void look() {
    EXPECT_EQ(volume().status().state, "running");
    EXPECT_TRUE(volume().checkpoints());
    const auto verified = volume().verify(kGoOn);
    ASSERT_TRUE(verified) << verified.error().message();
    EXPECT_EQ(verified->mismatched_bytes, 0U);
  }

  std::string folder_;
  LocalOptions options_;
  std::unique_ptr<LocalVolume> local_;
  std::atomic<bool> stop_{false};
  std::vector<std::unique_ptr<Writer>> writers_;
  std::vector<std::thread> threads_;
};

TEST_P(RaceTest, CheckpointsAndRollbacksUnderLoadAreExact) {
  open();
  for (uint64_t round = 0; round < kRounds; ++round) {
    begin_load(2 * round);
    for (int i = 0; i < kCheckpointsARound; ++i) {
      checkpoint();
      look();
    }
    end_load();
    checkpoint();
    const auto wanted = content();
    begin_load(2 * round + 1);
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
    if (round % 2 == 0) {
      // Under load: the requests are held meanwhile, and go on after it.
      const auto back = volume().roll_back({"last", ClientPolicy::kKeep, false}, kGoOn);
      EXPECT_TRUE(back) << back.error().message();
    }
    end_load();
    const auto back = volume().roll_back({"last", ClientPolicy::kRefuse, false}, kGoOn);
    ASSERT_TRUE(back) << back.error().message();
    EXPECT_EQ(content(), wanted);
    ASSERT_TRUE(local_->close());
    local_.reset();
    open();
    EXPECT_EQ(content(), wanted);
  }
  EXPECT_TRUE(local_->close());
}

// At once late: every checkpoint is handed over to the other pump, and back.
TEST_P(RaceTest, ALateCheckpointIsHurried) {
  options_.volume.ship_patience = std::chrono::nanoseconds(1);
  open();
  begin_load(99);
  const auto before = ran("ckpt-hurry");
  for (int i = 0; i < kCheckpointsARound; ++i) {
    checkpoint();
  }
  EXPECT_GT(ran("ckpt-hurry") - before, std::chrono::milliseconds(2));
  end_load();
  checkpoint();
  const auto wanted = content();
  const auto back = volume().roll_back({"last", ClientPolicy::kRefuse, false}, kGoOn);
  ASSERT_TRUE(back) << back.error().message();
  EXPECT_EQ(content(), wanted);
  EXPECT_TRUE(local_->close());
}

INSTANTIATE_TEST_SUITE_P(Engines, RaceTest, testing::Values(IoMode::kUring, IoMode::kSync),
                         [](const auto& engine) {
                           return engine.param == IoMode::kUring ? "Uring" : "Sync";
                         });

}  // namespace
}  // namespace ckpt
