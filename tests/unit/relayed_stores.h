// SPDX-License-Identifier: Apache-2.0
// Two stores, one of which passes its checkpoints on to the other, over a link that breaks.
#pragma once

#include <functional>
#include <map>
#include <memory>

#include "backupd/relay.h"
#include "tests/unit/memory_sink.h"
#include "tests/unit/store_peer.h"

namespace ckpt::test {

// The further store over a link that can break, and counts what goes over it.
class BreakableLink final : public StoreLink {
 public:
  // Asked before each call, and after it with its answer on the way.
  std::function<Result<>(bool is_after)> on_call = [](bool) { return Result<>(); };
  std::function<void()> on_attach = [] {};
  std::function<Result<>(uint64_t nth)> on_compare = [](uint64_t) { return Result<>(); };
  uint64_t compared = 0;  // questions
  uint64_t sessions = 0;
  uint64_t batches = 0;
  uint64_t blocks = 0;
  uint64_t confirmed = 0;

  void set_store(Store* store) {
    store_ = store;
    is_over_ = true;
  }
  Result<StoreGreeting> begin_session() override {
    is_over_ = false;
    ++sessions;
    return call([&] { return store_->begin_session(); });
  }
  Result<> accept(uint64_t incarnation) override {
    return call([&] { return store_->accept(incarnation); });
  }
  Result<> receive(const EncodedBatch& batch) override {
    ++batches;
    const auto decoded = decode_batch(batch.header, batch.payload, kPeerDiskBytes);
    EXPECT_TRUE(decoded);
    for (const Extent& extent : decoded->extents) {
      blocks += blocks_of(ByteRange{extent.offset, extent.length}).count();
    }
    return call([&] { return store_->receive(batch); });
  }
  Result<> attach(Epoch epoch, uint32_t index, ConstByteSpan piece) override {
    on_attach();
    return call([&] { return store_->attach(epoch, index, piece); });
  }
  Result<> confirm(const Confirmation& confirmation) override {
    return call([&] { return store_->confirm(confirmation); });
  }
  Result<> confirm_copy(const CheckpointCopy& copy) override {
    ++confirmed;
    return call([&] { return store_->confirm_copy(copy); });
  }
  Result<> roll_back(const CheckpointId& from, const Uuid& to) override {
    return call([&] { return store_->roll_back(from, to); });
  }
  Result<> read_confirmed(uint64_t offset, ByteSpan buffer) override {
    return call([&] { return store_->read_confirmed(offset, buffer); });
  }
  // On a connection of its own.
  Result<std::vector<Digest>> digests(const DigestQuery& query) override {
    CKPT_TRY(on_compare(++compared));
    return call([&] { return store_->digests(query); });
  }
  Result<std::optional<ByteRange>> next_confirmed_data(uint64_t offset) override {
    return call([&] { return store_->next_confirmed_data(offset); });
  }
  Result<> export_checkpoint(std::optional<Epoch>, ExportSink&) override {
    return fail(ErrorKind::kInvalid, "not asked for");
  }
  Result<> read_attachment(Epoch, const std::string&, PieceSink&) override {
    return fail(ErrorKind::kInvalid, "not asked for");
  }
  Result<std::vector<CheckpointInfo>> checkpoints() override { return store_->checkpoints(); }
  StoreStatus status() override { return store_->status(); }
  [[nodiscard]] Result<> check_link() override {
    return is_over_ ? Result<>(fail(ErrorKind::kUnreachable, "broken")) : Result<>();
  }

 private:
  template <typename Act>
  auto call(const Act& act) -> decltype(act()) {
    if (auto before = is_over_ ? check_link() : on_call(false); !before) {
      is_over_ = true;
      return Unexpected(before.error());
    }
    auto answer = act();
    if (auto after = on_call(true); !after) {
      is_over_ = true;
      return Unexpected(after.error());
    }
    return answer;
  }

  Store* store_ = nullptr;
  bool is_over_ = false;
};

class RelayTest : public ::testing::Test {
 protected:
  RelayTest() : peer_(disk_) {}
  void SetUp() override {
    ASSERT_DONE(peer_.open());
    ASSERT_DONE(peer_.begin());
    open_further();
    start_relay();
  }

  void open_further() {
    further_.reset();
    StoreOptions options = peer_.options();
    options.address = "further";
    auto opened = Store::open(further_disk_.root(), options);
    ASSERT_DONE(opened);
    further_ = std::move(*opened);
    link_.set_store(further_.get());
  }
  void start_relay(uint64_t queue_bytes = kRelayQueueBytesMax) {
    relay_.reset();
    relay_ = std::make_unique<Relay>(peer_.store(), link_, queue_bytes);
  }
  void checkpoint(uint64_t number) {
    ASSERT_DONE(peer_.checkpoint(number));
    remember();
  }
  void remember() {
    const CheckpointInfo& last = peer_.last->checkpoint;
    known_[last.id] = *peer_.last;
  }
  // When the next checkpoint comes while the first is read, the second is gone.
  void attach_two(uint64_t number) {
    ASSERT_DONE(peer_.attach(number, "memory", 1000));
    ASSERT_DONE(peer_.attach(number, "state", 1000));
  }
  // Steps until there is nothing to do.
  void relay_all() {
    for (Result<bool> more = true; *more; more = relay_->step()) {
      ASSERT_DONE(more);
    }
  }
  void expect_passed(uint64_t number) {
    const auto last = further_->record().last;
    ASSERT_TRUE(last);
    EXPECT_EQ(last->id.number.value, number);
    expect_whole();
  }
  // What the further store has is a checkpoint of this line, exactly.
  void expect_whole() {
    const StoreRecord record = further_->record();
    if (!record.last) {
      return;
    }
    const auto known = known_.find(record.last->id);
    ASSERT_TRUE(known != known_.end()) << record.last->id.number.value;
    const CheckpointInfo& was = known->second.checkpoint;
    EXPECT_EQ(record.last->digest, was.digest);
    EXPECT_EQ(record.last->parent, was.parent);
    EXPECT_EQ(record.last->name, was.name);
    EXPECT_EQ(record.last->attachments, was.attachments);
    MemorySink sink;
    ASSERT_DONE(further_->export_checkpoint(std::nullopt, sink));
    EXPECT_TRUE(sink.has_all());
    ASSERT_TRUE(sink.content == known->second.content) << record.last->id.number.value;
    for (const AttachmentInfo& attachment : was.attachments) {
      PieceCopy copy;
      ASSERT_DONE(further_->read_attachment(record.last->id.number, attachment.name, copy));
      EXPECT_TRUE(copy.content == attachment_content(record.last->id.number.value, attachment.name,
                                                     attachment.size_bytes));
    }
  }

  MemoryDisk disk_;
  MemoryDisk further_disk_;
  StorePeer peer_;
  std::unique_ptr<Store> further_;
  BreakableLink link_;
  std::unique_ptr<Relay> relay_;
  std::map<CheckpointId, StorePeer::Known> known_;
};

}  // namespace ckpt::test
