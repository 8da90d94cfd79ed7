// SPDX-License-Identifier: Apache-2.0
// What a traced link says, and that it is otherwise as if it were not there.
#include <gtest/gtest.h>

#include "plugin/link_trace.h"
#include "tests/unit/control_fake_volume.h"
#include "tests/unit/memory_sink.h"
#include "tests/unit/plugin_fakes.h"

namespace ckpt::test {
namespace {

// Notes each call with its arguments. It takes 250 us, and fails if it is told to.
class NotingLink : public StoreLink {
 public:
  explicit NotingLink(FakeClock& clock) : clock_(clock) {}

  Result<StoreGreeting> begin_session() override { return answer("begin", greeting); }
  Result<> accept(uint64_t incarnation) override { return note("accept", incarnation); }
  Result<> receive(const EncodedBatch& batch) override {
    return note("receive", batch.header.sequence);
  }
  Result<> attach(Epoch epoch, uint32_t index, ConstByteSpan piece) override {
    return note("attach", epoch.value, index, piece.size());
  }
  Result<> confirm(const Confirmation& confirmation) override {
    return note("confirm", confirmation.checkpoint.id.number.value);
  }
  Result<> roll_back(const CheckpointId& from, const Uuid& to) override {
    return note("roll_back", from.number.value, to.to_string());
  }
  Result<> read_confirmed(uint64_t offset, ByteSpan buffer) override {
    return note("read", offset, buffer.size());
  }
  Result<std::optional<ByteRange>> next_confirmed_data(uint64_t offset) override {
    return answer("next", std::optional(ByteRange{8192, 512}), offset);
  }
  Result<> read_ranges(std::span<const ByteRange> ranges, ContentSink& sink) override {
    CKPT_TRY(note("ranges", ranges.size()));
    return sink.zero(ranges.front());
  }
  Result<std::vector<Digest>> digests(const DigestQuery& query) override {
    return answer("digests", std::vector<Digest>(3), query.blocks.first, query.blocks.end,
                  query.size_bytes, query.seed);
  }
  Result<> export_checkpoint(std::optional<Epoch> number, ExportSink& sink) override {
    CKPT_TRY(note("export", number ? number->value : 0));
    return sink.begin(sample_checkpoint(7), 4096);
  }
  Result<> read_attachment(Epoch number, const std::string& name, PieceSink& sink) override {
    CKPT_TRY(note("attachment", number.value, name));
    return sink.take({}, {});
  }
  Result<std::vector<CheckpointInfo>> checkpoints() override {
    return answer("checkpoints", std::vector<CheckpointInfo>{sample_checkpoint(7)});
  }
  StoreStatus status() override {
    (void)note("status");
    StoreStatus status;
    status.address = "host:7000";
    return status;
  }
  [[nodiscard]] Result<> check_link() override { return note("check"); }

  StoreGreeting greeting;
  std::optional<Error> failure;
  std::vector<std::string> calls;

 private:
  static std::string word(const std::string& text) { return text; }
  static std::string word(uint64_t number) { return std::to_string(number); }
  template <typename... Arguments>
  Result<> note(std::string call, const Arguments&... arguments) {
    ((call += " " + word(arguments)), ...);
    calls.push_back(call);
    clock_.pass(std::chrono::microseconds(250));
    return failure ? Result<>(Unexpected(*failure)) : Result<>();
  }
  template <typename Answer, typename... Arguments>
  Result<Answer> answer(const std::string& call, Answer given, const Arguments&... arguments) {
    CKPT_TRY(note(call, arguments...));
    return given;
  }

  FakeClock& clock_;
};

class CountedPieces : public PieceSink {
 public:
  Result<> take(const PieceHeader&, ConstByteSpan) override {
    ++count;
    return {};
  }
  int count = 0;
};

using TraceLines = std::vector<std::string>;

class LinkTraceTest : public testing::Test {
 protected:
  static TraceLine into(TraceLines& lines) {
    return [&lines](const std::string& line) { lines.push_back(line); };
  }
  LinkTrace traced() { return {link_, {into(ship_), into(store_)}, clock_}; }
  static EncodedBatch batch() {
    EncodedBatch made;
    made.header.epoch = Epoch{4};
    made.header.sequence = 17;
    made.header.extent_count = 3;
    made.header.data_bytes = 8192;
    made.header.stored_bytes = 100;
    return made;
  }
  static Confirmation confirmation() {
    return {sample_checkpoint(7), std::vector<CoveredEpoch>(2)};
  }

  FakeClock clock_;
  NotingLink link_{clock_};
  TraceLines ship_;
  TraceLines store_;
};

TEST_F(LinkTraceTest, SaysWhatItWasAndHowLongItTook) {
  link_.greeting.last = sample_checkpoint(6);
  LinkTrace trace = traced();
  MemorySink sink;
  MemorySink last;
  ASSERT_DONE(trace.begin_session());
  ASSERT_DONE(trace.accept(77));
  ASSERT_DONE(trace.receive(batch()));
  ASSERT_DONE(trace.confirm(confirmation()));
  ASSERT_DONE(trace.roll_back({{}, Epoch{7}}, uuid_of(1)));
  ASSERT_DONE(trace.export_checkpoint(Epoch{7}, sink));
  ASSERT_DONE(trace.export_checkpoint(std::nullopt, last));
  EXPECT_EQ(ship_, TraceLines{"epoch 4, batch 17: 3 extents, 8192 bytes, stored as 100, "
                              "in 250 us"});
  EXPECT_EQ(
      store_,
      (TraceLines{"session, in 250 us", "the store has checkpoint 6",
                  "accept incarnation 77, in 250 us", "confirm 7, 2 epochs covered, in 250 us",
                  "roll back to 7, timeline " + uuid_of(1).to_string() + ", in 250 us",
                  "export 7, in 250 us", "export the last, in 250 us"}));
}

TEST_F(LinkTraceTest, SaysThatTheStoreHasNone) {
  ASSERT_DONE(traced().begin_session());
  EXPECT_EQ(store_, (TraceLines{"session, in 250 us", "the store has checkpoint none"}));
}

TEST_F(LinkTraceTest, SaysWhatWentWrongAndPassesItOn) {
  link_.failure = Error{ErrorKind::kFenced, 0, "host:7000: another has it"};
  LinkTrace trace = traced();
  EXPECT_KIND(kFenced, trace.begin_session());
  EXPECT_KIND(kFenced, trace.receive(batch()));
  EXPECT_KIND(kFenced, trace.confirm(confirmation()));
  EXPECT_EQ(store_, (TraceLines{"session, in 250 us: host:7000: another has it",
                                "confirm 7, 2 epochs covered, in 250 us: host:7000: another has "
                                "it"}));
  ASSERT_EQ(ship_.size(), 1U);
  EXPECT_TRUE(ship_.front().ends_with(", in 250 us: host:7000: another has it")) << ship_.front();
}

TEST_F(LinkTraceTest, PassesOnWhatIsTraced) {
  link_.greeting.incarnation = 5;
  LinkTrace trace = traced();
  MemorySink sink;
  EXPECT_EQ(trace.begin_session()->incarnation, 5U);
  ASSERT_DONE(trace.accept(77));
  ASSERT_DONE(trace.receive(batch()));
  ASSERT_DONE(trace.confirm(confirmation()));
  ASSERT_DONE(trace.roll_back({{}, Epoch{7}}, uuid_of(1)));
  ASSERT_DONE(trace.export_checkpoint(Epoch{7}, sink));
  EXPECT_EQ(sink.content.size(), 4096U);
  EXPECT_EQ(link_.calls, (TraceLines{"begin", "accept 77", "receive 17", "confirm 7",
                                     "roll_back 7 " + uuid_of(1).to_string(), "export 7"}));
}

TEST_F(LinkTraceTest, PassesOnReadsAndQuestionsInSilence) {
  LinkTrace trace = traced();
  std::vector<std::byte> buffer(512);
  MemorySink sink;
  ASSERT_DONE(sink.begin({}, 8192));
  CountedPieces pieces;
  ASSERT_DONE(trace.read_confirmed(4096, buffer));
  EXPECT_EQ((*trace.next_confirmed_data(4096))->offset, 8192U);
  const std::vector<ByteRange> ranges{{0, 8192}};
  ASSERT_DONE(trace.read_ranges(ranges, sink));
  EXPECT_EQ(sink.zeroed_bytes, 8192U);
  ASSERT_DONE(trace.attach(Epoch{4}, 1, buffer));
  ASSERT_DONE(trace.read_attachment(Epoch{7}, "vm", pieces));
  EXPECT_EQ(pieces.count, 1);
  EXPECT_EQ(trace.digests({{2, 5}, 65536, 99})->size(), 3U);
  EXPECT_EQ(trace.checkpoints()->front().name, "before-7");
  EXPECT_EQ(trace.status().address, "host:7000");
  ASSERT_DONE(trace.check_link());
  EXPECT_EQ(link_.calls, (TraceLines{"read 4096 512", "next 4096", "ranges 1", "attach 4 1 512",
                                     "attachment 7 vm", "digests 2 5 65536 99", "checkpoints",
                                     "status", "check"}));
  EXPECT_TRUE(ship_.empty());
  EXPECT_TRUE(store_.empty());
}

TEST_F(LinkTraceTest, LinesMayGoNowhere) {
  LinkTrace silent(link_, {}, clock_);
  ASSERT_DONE(silent.begin_session());
  ASSERT_DONE(silent.receive(batch()));
  EXPECT_EQ(link_.calls, (TraceLines{"begin", "receive 17"}));
  EXPECT_FALSE(LinkTraceOptions{}.traces());
  EXPECT_TRUE((LinkTraceOptions{into(ship_), {}}).traces());
  EXPECT_TRUE((LinkTraceOptions{{}, into(store_)}).traces());
}

}  // namespace
}  // namespace ckpt::test
