// SPDX-License-Identifier: Apache-2.0
// What a primary lives on, as its tests want it: memory that "outlives the process", a clock that
// stands still, a store that keeps what it is sent, checks it, and can fail.
#pragma once

#include <gtest/gtest.h>

#include <cerrno>
#include <map>
#include <memory>
#include <set>
#include <thread>

#include "common/checksum.h"
#include "common/store_link.h"
#include "plugin/checkpoint.h"
#include "plugin/write_path.h"
#include "tests/unit/memory_directory.h"

namespace ckpt::test {

using Content = std::vector<std::byte>;

inline Uuid uuid_of(uint8_t value) {
  Uuid uuid;
  uuid.bytes.fill(value);
  return uuid;
}

// A block's worth of bytes that differ from value to value; 0 gives zeroes.
Content block_of(uint64_t value, uint64_t bytes = kBlockBytes);

class FakeClock : public Clock {
 public:
  [[nodiscard]] SteadyTime steady() const override { return SteadyTime(now_ns_.load()); }
  [[nodiscard]] WallTime wall() const override { return steady() - WallTime(set_back_ns_.load()); }
  void pass(std::chrono::nanoseconds time) { now_ns_ += time.count(); }
  // The wall clock alone.
  void set_back(std::chrono::nanoseconds time) { set_back_ns_ += time.count(); }

 private:
  std::atomic<int64_t> set_back_ns_{0};
  std::atomic<int64_t> now_ns_{1'000'000'000'000};
};

class FakeRandom : public Random {
 public:
  uint64_t next() override { return state_ += 0x9e3779b97f4a7c15U; }

 private:
  uint64_t state_ = 1;
};

// A mapping that can be out of space.
class FakeMemory : public SharedMemory {
 public:
  FakeMemory(std::vector<uint64_t>& words, std::set<uint64_t>& pages, const bool& full)
      : words_(words), pages_(pages), full_(full) {}
  ByteSpan bytes() override { return std::as_writable_bytes(std::span(words_)); }
  Result<> allocate(ByteRange range) override;
  Result<> allocate_private(ByteRange) override { return {}; }
  Result<std::optional<ByteRange>> next_allocated(uint64_t offset) override;

 private:
  std::vector<uint64_t>& words_;
  std::set<uint64_t>& pages_;
  const bool& full_;
};

class FakeMemoryStore : public SharedMemoryStore {
 public:
  Result<std::unique_ptr<SharedMemory>> create(const std::string& name, uint64_t bytes) override;
  Result<std::unique_ptr<SharedMemory>> open(const std::string& name, uint64_t bytes) override;
  Result<> remove(const std::string& name) override;
  [[nodiscard]] ByteSpan content(const std::string& name) {
    return std::as_writable_bytes(std::span(kept_.at(name).words));
  }

  bool full = false;

 private:
  struct Kept {
    std::vector<uint64_t> words;
    std::set<uint64_t> pages;
  };
  std::map<std::string, Kept> kept_;
};

// A file that tells when it is read: what another thread may do just then.
class HookedFile : public File {
 public:
  explicit HookedFile(std::unique_ptr<File> inner) : inner_(std::move(inner)) {}
  Result<> read(uint64_t offset, ByteSpan buffer) override { return inner_->read(offset, buffer); }
  Result<> write(uint64_t offset, ConstByteSpan buffer) override {
    return inner_->write(offset, buffer);
  }
  Result<> read_many(std::span<const Transfer> transfers) override {
    const auto is_bad = [this](const Transfer& transfer) {
      return bad_block && blocks_of(ByteRange{transfer.offset, transfer.buffer.size()})
                              .overlaps({*bad_block, *bad_block + 1});
    };
    if (std::ranges::any_of(transfers, is_bad)) {
      return fail(ErrorKind::kIo, "pread image", EIO);
    }
    auto outcome = inner_->read_many(transfers);
    if (on_read_many) {
      on_read_many();
    }
    return outcome;
  }
  Result<> write_many(std::span<const Transfer> transfers) override {
    return inner_->write_many(transfers);
  }
  Result<> sync() override { return inner_->sync(); }
  Result<> allocate(ByteRange range) override { return inner_->allocate(range); }
  Result<> zero(ByteRange range, bool punch) override { return inner_->zero(range, punch); }
  Result<> give_back(ByteRange range) override { return inner_->give_back(range); }
  Result<> resize(uint64_t size_bytes) override { return inner_->resize(size_bytes); }
  Result<uint64_t> size() override { return inner_->size(); }
  Result<std::optional<ByteRange>> next_data(uint64_t offset) override {
    return inner_->next_data(offset);
  }
  Result<FileStamp> stamp() override { return inner_->stamp(); }

  std::function<void()> on_read_many;  // called after each read, still under the block lock
  std::optional<uint64_t> bad_block;   // reads of many that touch it fail

 private:
  std::unique_ptr<File> inner_;
};

inline const Error kLinkBroke{ErrorKind::kUnreachable, ECONNRESET, "link"};

// A store that checks every batch and every confirmation as the real one would, and keeps a log.
class FakeStore : public StoreLink {
 public:
  explicit FakeStore(uint64_t size_bytes) : content(size_bytes), size_bytes_(size_bytes) {}

  Result<StoreGreeting> begin_session() override;
  Result<std::vector<BlockRange>> stale(uint64_t from) override;
  Result<> accept(uint64_t incarnation) override;
  Result<> receive(const EncodedBatch& batch) override;
  Result<> attach(Epoch epoch, uint32_t index, ConstByteSpan piece) override;
  Result<> read_attachment(Epoch number, const std::string& name, PieceSink& sink) override;
  Result<> confirm(const Confirmation& confirmation) override;
  Result<> roll_back(const CheckpointId& from, const Uuid& to) override;
  Result<> read_confirmed(uint64_t offset, ByteSpan buffer) override;
  Result<std::optional<ByteRange>> next_confirmed_data(uint64_t offset) override;
  Result<> export_checkpoint(std::optional<Epoch> number, ExportSink& sink) override;
  Result<std::vector<CheckpointInfo>> checkpoints() override;
  StoreStatus status() override;

  // What it does instead of succeeding, while set.
  std::optional<Error> fail_begin;
  std::optional<Error> fail_accept;
  std::optional<Error> fail_receive;
  std::optional<Error> fail_confirm;  // before it counts
  std::optional<Error> lose_answer;   // of confirm: after it counted
  std::optional<Error> fail_roll_back;
  std::optional<Error> fail_read;

  std::function<void()> on_receive;                     // called first, with each batch
  std::function<void(const Confirmation&)> on_confirm;  // with each CONFIRM
  std::function<void()> on_read;                        // and with each read

  StoreGreeting greeting;
  std::vector<BlockRange> stale_runs;  // handed over two at a time
  Content content;                     // of the last confirmed checkpoint
  std::vector<Batch> received;         // all that ever came
  std::vector<CheckpointId> rollbacks;
  std::optional<Error> fail_attach;
  // Pieces that came: of which epoch and attachment.
  std::map<std::pair<Epoch, uint32_t>, std::vector<std::vector<std::byte>>> attached;

  // How often a block came, in any epoch, in batches from the nth on.
  [[nodiscard]] uint64_t times_received(uint64_t block, size_t from = 0) const;

 private:
  void apply(const Batch& batch);

  uint64_t size_bytes_;
  std::map<std::pair<Epoch, uint64_t>, Batch> pending_;
};

// A primary's parts, wired as Volume wires them, without its pumps: tests step them.
class Primary {
 public:
  static constexpr Geometry kGeometry{.size_bytes = (3 * 64 + 10) * kBlockBytes + 512,
                                      .region_bytes = 64 * kBlockBytes};
  explicit Primary(ShipOptions ship = {}, PreserveLimits limits = {});

  // Writes one block, or more; the last block is short.
  Result<> write(uint64_t block, uint64_t value) { return write({block, block + 1}, value); }
  Result<> write(BlockRange blocks, uint64_t value);
  [[nodiscard]] Content image_content();
  [[nodiscard]] Content block(uint64_t block);
  // Opens a session and settles what it means.
  Result<HandshakeRow> open_session();
  // Steps until nothing is to be done; the image is synced when the maker wants it.
  void run();
  // Asks, and steps until it is answered.
  Result<CheckpointOutcome> checkpoint(const CheckpointRequest& request = {});
  // A session, and a first checkpoint of the empty disk with nothing left to do.
  Result<CheckpointOutcome> start();
  [[nodiscard]] bool is_changed(uint64_t block) { return disk->is_changed({block, block + 1}); }
  EpochObject& current() { return disk->epochs.current(); }

  MemoryDisk machine;
  std::unique_ptr<Directory> state;
  std::unique_ptr<HookedFile> image;
  FakeMemoryStore memory;
  FakeClock clock;
  FakeRandom random;
  FakeStore store{kGeometry.size_bytes};
  std::unique_ptr<WrittenMaps> maps;
  std::unique_ptr<RegionMap> regions;
  std::unique_ptr<VolumeRecordFile> record;
  std::unique_ptr<Disk> disk;
  std::unique_ptr<WritePath> path;
  std::unique_ptr<Shipper> shipper;
  std::unique_ptr<Session> session;
  std::unique_ptr<CheckpointMaker> maker;

 private:
  void make_files();
  void make_parts(ShipOptions ship, PreserveLimits limits);
};

// A caller who waits for a checkpoint on a thread of its own.
class Caller {
 public:
  // Returns when it is asked for.
  explicit Caller(Primary& primary, const CheckpointRequest& request = {});
  ~Caller() { wait(); }
  Caller(const Caller&) = delete;
  Caller& operator=(const Caller&) = delete;

  [[nodiscard]] bool is_answered() const { return answered_.load(); }
  // Time passes until it has given up.
  void run_out_of_time() {
    while (!is_answered()) {
      primary_.clock.pass(std::chrono::milliseconds(1));
      std::this_thread::yield();
    }
  }
  Result<CheckpointOutcome> outcome() {
    wait();
    return outcome_;
  }

 private:
  void wait() {
    if (thread_.joinable()) {
      thread_.join();
    }
  }
  Primary& primary_;
  size_t asked_before_;
  Result<CheckpointOutcome> outcome_ = fail(ErrorKind::kTimeout, "not answered");
  std::atomic<bool> answered_{false};
  std::thread thread_;
};

// A primary whose checkpoints are stepped through.
class MakerTest : public testing::Test {
 protected:
  // Asks and cuts; nothing is shipped yet.
  void cut(Caller&) { ASSERT_TRUE(primary_.maker->step()); }
  void expect_store_has(const Content& content) { EXPECT_TRUE(primary_.store.content == content); }
  uint64_t last_number() {
    const auto& last = primary_.store.greeting.last;
    return last ? last->id.number.value : 0;
  }

  Primary primary_;
};

}  // namespace ckpt::test

// For a Result that must be there, and for one that must be an error of a kind.
#define ASSERT_DONE(expression)                  \
  do {                                           \
    const auto& done = (expression);             \
    ASSERT_TRUE(done) << done.error().message(); \
  } while (false)
#define EXPECT_KIND(error_kind, expression)                                        \
  do {                                                                             \
    const auto& done = (expression);                                               \
    ASSERT_FALSE(done);                                                            \
    EXPECT_EQ(done.error().kind, ErrorKind::error_kind) << done.error().message(); \
  } while (false)
