// SPDX-License-Identifier: Apache-2.0
// Relays: the further store has whole checkpoints of the line, exactly, whatever breaks.
#include <random>

#include "backupd/relay.h"
#include "tests/unit/memory_sink.h"
#include "tests/unit/store_peer.h"

namespace ckpt::test {
namespace {

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

TEST_F(RelayTest, PassesNothingWhereThereIsNothing) {
  ASSERT_DONE(peer_.ship(1, {data(0, 4)}));
  EXPECT_EQ(*relay_->step(), false);
  EXPECT_FALSE(further_->record().last);
  EXPECT_FALSE(relay_->passed());
}

TEST_F(RelayTest, PassesWholeCheckpointsOn) {
  ASSERT_DONE(peer_.ship(1, {data(0, 4), data(9, 1)}));
  ASSERT_DONE(peer_.attach(1, "memory", 10000));
  ASSERT_DONE(peer_.attach(1, "state", 1));
  checkpoint(1);
  relay_all();
  expect_passed(1);
  EXPECT_EQ(relay_->passed(), peer_.last->checkpoint.id);
  EXPECT_EQ(further_->record().incarnation, peer_.incarnation);
  ASSERT_DONE(peer_.ship(2, {zeroes(1, 2), data(15, 1)}));
  checkpoint(2);
  ASSERT_DONE(peer_.ship(3, {data(0, 16)}));  // pending
  relay_all();
  expect_passed(2);
  EXPECT_EQ(further_->status().pending_bytes, 0U);
}

TEST_F(RelayTest, PassesOnOnlyWhatChanged) {
  ASSERT_DONE(peer_.ship(1, {data(0, 12)}));
  checkpoint(1);
  relay_all();
  EXPECT_EQ(link_.blocks, 12U);  // no holes into a new store
  link_.blocks = 0;
  ASSERT_DONE(peer_.ship(2, {data(3, 2)}));
  checkpoint(2);
  ASSERT_DONE(peer_.ship(4, {data(4, 3)}));
  checkpoint(4);
  relay_all();
  EXPECT_EQ(link_.blocks, 4U);
  expect_passed(4);
}

TEST_F(RelayTest, AnEmptyCheckpointIsOne) {
  ASSERT_DONE(peer_.ship(1, {data(0, 1)}));
  checkpoint(1);
  relay_all();
  checkpoint(2);
  relay_all();
  expect_passed(2);
  EXPECT_EQ(link_.batches, 1U);
}

TEST_F(RelayTest, OneThatWasRestartedComparesByDigests) {
  ASSERT_DONE(peer_.ship(1, {data(0, 12)}));
  checkpoint(1);
  relay_all();
  start_relay();
  link_.blocks = 0;
  ASSERT_DONE(peer_.ship(2, {data(3, 1), zeroes(8, 2), data(14, 2)}));
  checkpoint(2);
  relay_all();
  EXPECT_EQ(link_.blocks, 5U);
  expect_passed(2);
}

// Part of what is passed on is pending there when this store changes again: what is as the further
// store's last checkpoint had it is sent all the same.
TEST_F(RelayTest, WhatChangesBackIsSentAgain) {
  ASSERT_DONE(peer_.ship(1, {data(1, 4)}));
  checkpoint(1);
  relay_all();
  start_relay();  // compares
  ASSERT_DONE(peer_.ship(2, {data(0, 1), data(7, 1)}));
  attach_two(2);
  checkpoint(2);
  bool is_overtaken = false;
  link_.on_attach = [&] {
    if (!std::exchange(is_overtaken, true)) {
      ASSERT_DONE(peer_.ship(3, {zeroes(0, 1)}));
      checkpoint(3);
      ASSERT_DONE(peer_.store().finish_applying());
    }
  };
  relay_all();
  EXPECT_TRUE(is_overtaken);
  expect_passed(3);
}

// What changes is handed over before, and waits; where too much would wait the relay begins again
// with what is left.
TEST_F(RelayTest, GoesOnWithALaterCheckpointWhereTooMuchWaits) {
  start_relay(4 * kBlockBytes);
  ASSERT_DONE(peer_.ship(1, {data(0, 4), data(8, 4)}));
  ASSERT_DONE(peer_.attach(1, "memory", 1000));
  checkpoint(1);
  bool has_changed = false;
  link_.on_attach = [&] {
    if (!std::exchange(has_changed, true)) {
      ASSERT_DONE(peer_.ship(2, {data(8, 2)}));
      checkpoint(2);
      ASSERT_DONE(peer_.store().finish_applying());
    }
  };
  EXPECT_EQ(*relay_->step(), true);
  EXPECT_FALSE(further_->record().last);
  relay_all();
  expect_passed(2);
  // What was sent first is of an epoch that is no later than the checkpoint's parent.
  further_.reset();
  further_disk_.lose_power(0);
  open_further();
  expect_passed(2);
}

// Nothing is compared, though the relay is new.
TEST_F(RelayTest, OneThatWasRestartedAtTheLastCheckpointGoesOn) {
  ASSERT_DONE(peer_.ship(1, {data(0, 12)}));
  checkpoint(1);
  relay_all();
  start_relay();
  relay_all();
  EXPECT_EQ(relay_->passed(), peer_.last->checkpoint.id);
  link_.blocks = link_.compared = link_.sessions = 0;
  ASSERT_DONE(peer_.ship(2, {data(3, 1)}));
  checkpoint(2);
  relay_all();
  EXPECT_EQ(link_.blocks, 1U);
  EXPECT_EQ(link_.compared, 0U);
  expect_passed(2);
}

// It may be another's.
TEST_F(RelayTest, BeginsNoSessionWhereNothingIsLacking) {
  checkpoint(1);
  relay_all();
  start_relay();
  link_.sessions = 0;
  relay_all();
  EXPECT_EQ(link_.sessions, 0U);
}

// What was taken for it and is not sent is not left out, whatever the error looks like.
TEST_F(RelayTest, AnAnswerThatIsBusyIsNoOvertaking) {
  ASSERT_DONE(peer_.ship(1, {data(0, 12)}));
  checkpoint(1);
  relay_all();
  ASSERT_DONE(peer_.ship(2, {data(3, 4)}));
  checkpoint(2);
  ASSERT_DONE(peer_.store().finish_applying());
  start_relay(8 * kBlockBytes);  // compares
  link_.on_compare = [](uint64_t nth) {
    return nth == 1 ? Result<>(fail(ErrorKind::kBusy, "no memory")) : Result<>();
  };
  (void)relay_->step();
  relay_all();
  expect_passed(2);
}

// However often it is overtaken: a store takes only so many epochs that no checkpoint covers.
TEST_F(RelayTest, WhatIsOvertakenIsOfOneEpoch) {
  uint64_t number = 1;
  const auto next = [&] {
    ASSERT_DONE(peer_.ship(number, {data(number % 16, 1)}));
    attach_two(number);
    checkpoint(number);
  };
  next();
  link_.on_attach = [&] {
    if (number < 2 * kPendingEpochsMax) {
      ++number;
      next();
    }
  };
  relay_all();
  EXPECT_EQ(link_.sessions, 1U);
  expect_passed(number);
}

// While it takes its time.
TEST_F(RelayTest, IsKeptAlive) {
  uint64_t told = 0;
  relay_.reset();
  relay_ = std::make_unique<Relay>(peer_.store(), link_, kRelayQueueBytesMax, [&] { ++told; });
  ASSERT_DONE(peer_.ship(1, {data(0, 1), data(8, 1)}));
  checkpoint(1);
  relay_all();
  EXPECT_GE(told, 3U);
}

// The disk goes on where attachments never get there in time.
TEST_F(RelayTest, OvertakenAttachmentsDoNotHoldTheDiskBack) {
  ASSERT_DONE(peer_.ship(1, {data(0, 16)}));
  attach_two(1);
  checkpoint(1);
  uint64_t number = 1;
  link_.on_attach = [&] {
    if (number < 4) {
      ++number;
      attach_two(number);
      checkpoint(number);
    }
  };
  EXPECT_EQ(*relay_->step(), true);
  EXPECT_EQ(link_.blocks, 16U);
  relay_all();
  EXPECT_EQ(link_.blocks, 16U);
  expect_passed(4);
}

TEST_F(RelayTest, FollowsRollbacks) {
  ASSERT_DONE(peer_.ship(1, {data(0, 4)}));
  checkpoint(1);
  relay_all();
  for (const uint8_t timeline : {uint8_t{0x33}, uint8_t{0x44}}) {
    ASSERT_DONE(peer_.roll_back(test_uuid(timeline)));
    remember();
  }
  relay_all();
  expect_passed(1);
  EXPECT_EQ(further_->record().forks, peer_.store().record().forks);
  ASSERT_DONE(peer_.roll_back(test_uuid(0x55)));
  ASSERT_DONE(peer_.begin());
  ASSERT_DONE(peer_.ship(2, {data(3, 1)}));
  checkpoint(2);
  relay_all();
  expect_passed(2);
  EXPECT_EQ(further_->record().forks, peer_.store().record().forks);
  EXPECT_EQ(further_->record().last->id.timeline, test_uuid(0x55));
}

TEST_F(RelayTest, TellsOfThePrimarysNextLife) {
  checkpoint(1);
  relay_all();
  peer_.incarnation = 8;
  ASSERT_DONE(peer_.begin());
  relay_all();
  EXPECT_EQ(further_->record().incarnation, 8U);
}

TEST_F(RelayTest, AnAnswerThatIsLostIsFoundOut) {
  ASSERT_DONE(peer_.ship(1, {data(0, 4)}));
  checkpoint(1);
  link_.on_call = [&](bool is_after) {
    return is_after && link_.confirmed == 1
               ? Result<>(fail(ErrorKind::kUnreachable, "the answer is lost"))
               : Result<>();
  };
  EXPECT_KIND(kUnreachable, relay_->step());
  link_.on_call = [](bool) { return Result<>(); };
  ASSERT_DONE(peer_.ship(2, {data(9, 1)}));
  checkpoint(2);
  link_.blocks = 0;
  relay_all();
  EXPECT_EQ(link_.blocks, 1U);
  expect_passed(2);
}

// As its primary it has gone on, or this store was put back from an older copy.
TEST_F(RelayTest, WhatIsNotOnTheLineIsLeftAlone) {
  ASSERT_DONE(peer_.ship(1, {data(0, 4)}));
  checkpoint(1);
  relay_all();
  StorePeer other(further_disk_);
  further_.reset();
  ASSERT_DONE(other.open());
  other.last = peer_.last;
  ASSERT_DONE(other.begin());
  ASSERT_DONE(other.ship(2, {data(5, 1)}));
  ASSERT_DONE(other.checkpoint(2));
  const StorePeer::Known theirs = *other.last;
  known_[theirs.checkpoint.id] = theirs;
  other.close();
  open_further();
  EXPECT_KIND(kFenced, relay_->step());
  EXPECT_KIND(kFenced, relay_->step());
  ASSERT_DONE(peer_.ship(2, {data(6, 1)}));
  ASSERT_DONE(peer_.checkpoint(2));  // of the same name, with another digest
  EXPECT_KIND(kFenced, relay_->step());
  EXPECT_EQ(further_->record().last->digest, theirs.checkpoint.digest);
  expect_whole();
}

// Of a store that has no checkpoint of its own yet: after a fail-over, say.
TEST_F(RelayTest, ANewStoreIsToldOfItsLine) {
  ASSERT_DONE(peer_.ship(1, {data(0, 4)}));
  checkpoint(1);
  relay_all();
  const CheckpointId fork = peer_.last->checkpoint.id;
  relay_.reset();
  MemoryDisk other_disk;
  StorePeer other(other_disk);
  ASSERT_DONE(other.open());
  other.timeline = test_uuid(0x44);
  ASSERT_DONE(other.begin());
  ASSERT_DONE(other.store().tell_forks({fork}));
  ASSERT_DONE(other.ship(2, {data(2, 5)}));
  ASSERT_DONE(other.checkpoint(2));
  ASSERT_DONE(other.store().tell_forks({}));  // it has its own now
  known_[other.last->checkpoint.id] = *other.last;
  Relay relay(other.store(), link_);
  for (Result<bool> more = true; *more; more = relay.step()) {
    ASSERT_DONE(more);
  }
  expect_passed(2);
  EXPECT_EQ(further_->record().forks, std::vector{fork});
}

TEST_F(RelayTest, NothingIsPassedToOneThatWasPromoted) {
  checkpoint(1);
  relay_all();
  ASSERT_DONE(further_->promote(test_uuid(0x77)));
  checkpoint(2);
  EXPECT_KIND(kFenced, relay_->step());
  EXPECT_EQ(further_->record().last->id.number.value, 1U);
}

TEST_F(RelayTest, ACopyHasToFollow) {
  ASSERT_DONE(peer_.ship(1, {data(0, 4)}));
  checkpoint(1);
  relay_all();
  const CheckpointCopy again{{peer_.last->checkpoint, {}}, {}};
  EXPECT_KIND(kInvalid, further_->confirm_copy(again));
  ASSERT_DONE(further_->begin_session());
  ASSERT_DONE(further_->accept(7));
  CheckpointCopy foreign = again;
  foreign.confirmation.checkpoint.id = {test_uuid(0x66), {5}};
  EXPECT_KIND(kInvalid, further_->confirm_copy(foreign));
  expect_passed(1);
}

// Whatever breaks wherever, what the further store has is a checkpoint; and when nothing breaks any
// more, it comes to have the last one.
class RelayHistory : public RelayTest, public ::testing::WithParamInterface<uint64_t> {
 protected:
  Extent draw_extent(uint64_t from, uint64_t to) {
    const uint64_t first = from + draw_() % (to - from);
    const uint64_t count = 1 + draw_() % (to - first);
    return draw_() % 3 == 0 ? zeroes(first, count) : data(first, count);
  }
  void ship() {
    const uint64_t half = 2 + draw_() % 12;
    ASSERT_DONE(peer_.ship(number_, {draw_extent(0, half), draw_extent(half, 16)}));
  }
  void act() {
    switch (draw_() % 12) {
      case 0:
      case 1:
      case 2: return ship();
      case 3:
        ASSERT_DONE(peer_.attach(number_, "a" + std::to_string(draw_()), 1 + draw_() % 9000));
        return;
      case 4:
      case 5:
        checkpoint(number_);
        number_ += 1 + draw_() % 2;
        return;
      case 6: ASSERT_DONE(peer_.store().apply_some()); return;
      case 7: return roll_back();
      case 8:
        if (draw_() % 3 == 0) {
          further_.reset();
          further_disk_.lose_power(draw_());
          open_further();
        }
        return;
      case 9:
        if (draw_() % 3 == 0) {
          start_relay(draw_queue());
        }
        return;
      default: step();
    }
  }
  uint64_t draw_queue() { return draw_() % 2 == 0 ? 5 * kBlockBytes : kRelayQueueBytesMax; }
  // Breaks the link at some call, and lets the store change meanwhile.
  void step() {
    uint64_t calls = draw_() % 3 == 0 ? 1 + draw_() % 20 : UINT64_MAX;
    uint64_t meanwhile = draw_() % 2 == 0 ? 1 + draw_() % 10 : UINT64_MAX;
    link_.on_call = [this, calls, meanwhile](bool) mutable -> Result<> {
      if (--meanwhile == 0) {
        change();
      }
      return --calls == 0 ? fail(ErrorKind::kUnreachable, "broken") : Result<>();
    };
    (void)relay_->step();
    link_.on_call = [](bool) { return Result<>(); };
    expect_whole();
  }
  void roll_back() {
    if (peer_.last) {
      ASSERT_DONE(peer_.roll_back(test_uuid(static_cast<uint8_t>(++timeline_))));
      ASSERT_DONE(peer_.begin());
      remember();
    }
  }
  void change() {
    if (draw_() % 4 == 0) {
      roll_back();
    }
    ship();
    checkpoint(number_++);
    ASSERT_DONE(peer_.store().finish_applying());
  }

  std::mt19937_64 draw_;
  uint64_t number_ = 1;
  unsigned timeline_ = 0x80;
};

TEST_P(RelayHistory, TheFurtherStoreHasWholeCheckpoints) {
  draw_.seed(GetParam());
  start_relay(draw_queue());
  for (int i = 0; i < 60 && !HasFatalFailure(); ++i) {
    act();
  }
  relay_all();
  if (peer_.last) {
    expect_passed(peer_.last->checkpoint.id.number.value);
    EXPECT_EQ(further_->record().last->id, peer_.last->checkpoint.id);
    EXPECT_EQ(further_->record().forks, peer_.store().record().forks);
  }
  peer_.expect_exact();
}

INSTANTIATE_TEST_SUITE_P(Seeds, RelayHistory, ::testing::Range<uint64_t>(1, 301));

}  // namespace
}  // namespace ckpt::test
