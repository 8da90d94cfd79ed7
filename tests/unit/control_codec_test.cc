// SPDX-License-Identifier: Apache-2.0
// What one end encodes the other decodes, and the field names are those that scripts rely on.
#include "plugin/control_codec.h"

#include <gtest/gtest.h>

#include "tests/unit/control_fake_volume.h"

namespace ckpt {
namespace {

using std::chrono::microseconds;
using std::chrono::milliseconds;

template <typename T>
ParsedJson as_received(const T& outcome) {
  Result<ControlAnswer> answer = decode_answer(encode_result(to_json(outcome)));
  EXPECT_TRUE(answer.has_value());
  return answer ? std::get<ParsedJson>(*answer) : ParsedJson();
}

void expect_same(const CheckpointInfo& a, const CheckpointInfo& b) {
  EXPECT_EQ(a.id, b.id);
  EXPECT_EQ(a.parent, b.parent);
  EXPECT_EQ(a.digest, b.digest);
  EXPECT_EQ(a.time, b.time);
  EXPECT_EQ(a.name, b.name);
  EXPECT_EQ(a.message, b.message);
  EXPECT_EQ(a.changed_bytes, b.changed_bytes);
  EXPECT_EQ(a.shipped_bytes, b.shipped_bytes);
}

TEST(ControlCodec, CheckpointRequestRoundTrip) {
  const CheckpointRequest sent{"before-upgrade", "text with \"quotes\"\n", milliseconds(1234)};
  const auto received = decode_request(encode_request(sent));
  ASSERT_TRUE(received);
  const auto& request = std::get<CheckpointRequest>(*received);
  EXPECT_EQ(request.name, sent.name);
  EXPECT_EQ(request.message, sent.message);
  EXPECT_EQ(request.timeout, sent.timeout);
}

TEST(ControlCodec, RollbackRequestRoundTrip) {
  for (const auto policy : {ClientPolicy::kRefuse, ClientPolicy::kFence, ClientPolicy::kKeep}) {
    const auto received = decode_request(encode_request(RollbackRequest{"42", policy, true}));
    ASSERT_TRUE(received);
    const auto& request = std::get<RollbackRequest>(*received);
    EXPECT_EQ(request.checkpoint, "42");
    EXPECT_EQ(request.clients, policy);
    EXPECT_TRUE(request.dry_run);
  }
}

TEST(ControlCodec, ExportRoundTrip) {
  const auto request = decode_request(encode_request(ExportRequest{"42"}));
  ASSERT_TRUE(request);
  EXPECT_EQ(std::get<ExportRequest>(*request).checkpoint, "42");
  EXPECT_FALSE(decode_request(R"({"schema":1,"command":"export","checkpoint":""})"));
  const auto begun = decode_answer(encode_export({sample_checkpoint(7), 123}));
  ASSERT_TRUE(begun);
  expect_same(std::get<ExportAnswer>(*begun).checkpoint, sample_checkpoint(7));
  EXPECT_EQ(std::get<ExportAnswer>(*begun).size_bytes, 123U);
  for (const bool is_hole : {false, true}) {
    const auto extent = decode_answer(encode_extent({{4096, kPieceBytes}, is_hole}));
    ASSERT_TRUE(extent);
    EXPECT_EQ(std::get<ExtentAnswer>(*extent).range, (ByteRange{4096, kPieceBytes}));
    EXPECT_EQ(std::get<ExtentAnswer>(*extent).is_hole, is_hole);
  }
}

TEST(ControlCodec, MoreDataThanAPieceIsRefused) {
  EXPECT_FALSE(decode_answer(encode_extent({{0, kPieceBytes + 1}, false})));
  EXPECT_TRUE(decode_answer(encode_extent({{0, kPieceBytes + 1}, true})));
  EXPECT_FALSE(decode_answer(encode_extent({{kDiskBytesMax + 1, 1}, false})));
}

TEST(ControlCodec, PlainRequestsRoundTrip) {
  EXPECT_TRUE(
      std::holds_alternative<StatusRequest>(*decode_request(encode_request(StatusRequest{}))));
  EXPECT_TRUE(std::holds_alternative<ListRequest>(*decode_request(encode_request(ListRequest{}))));
  EXPECT_TRUE(
      std::holds_alternative<VerifyRequest>(*decode_request(encode_request(VerifyRequest{}))));
  EXPECT_TRUE(
      std::holds_alternative<AcceptRequest>(*decode_request(encode_request(AcceptRequest{}))));
}

TEST(ControlCodec, DefaultsOfARequest) {
  const auto rollback = decode_request(R"({"schema":1,"command":"rollback"})");
  ASSERT_TRUE(rollback);
  EXPECT_EQ(std::get<RollbackRequest>(*rollback).checkpoint, "last");
  EXPECT_FALSE(std::get<RollbackRequest>(*rollback).dry_run);
  const auto checkpoint = decode_request(R"({"schema":1,"command":"checkpoint","name":null})");
  ASSERT_TRUE(checkpoint);
  EXPECT_EQ(std::get<CheckpointRequest>(*checkpoint).timeout, milliseconds(60000));
}

TEST(ControlCodec, StatusRoundTrip) {
  const VolumeStatus sent = FakeVolume::default_status();
  const auto status = decode_volume_status(as_received(sent));
  ASSERT_TRUE(status) << status.error().message();
  EXPECT_EQ(status->state, sent.state);
  EXPECT_EQ(status->role, sent.role);
  EXPECT_EQ(status->image, sent.image);
  EXPECT_EQ(status->volume, sent.volume);
  EXPECT_EQ(status->timeline, sent.timeline);
  EXPECT_EQ(status->lineage, sent.lineage);
  EXPECT_EQ(status->size_bytes, sent.size_bytes);
  EXPECT_EQ(status->io, sent.io);
  EXPECT_TRUE(status->protection);
  EXPECT_EQ(status->epoch, sent.epoch);
  ASSERT_TRUE(status->last_checkpoint);
  expect_same(*status->last_checkpoint, *sent.last_checkpoint);
  EXPECT_EQ(status->changed_bytes, sent.changed_bytes);
  EXPECT_EQ(status->unshipped_bytes, sent.unshipped_bytes);
  EXPECT_EQ(status->preserved_blocks, sent.preserved_blocks);
  EXPECT_EQ(status->stall_max, sent.stall_max);
  EXPECT_EQ(status->connections, sent.connections);
  EXPECT_EQ(status->checkpoint_interval, sent.checkpoint_interval);
  EXPECT_EQ(status->counts, sent.counts);
  ASSERT_TRUE(status->store);
  EXPECT_EQ(status->store->address, sent.store->address);
  EXPECT_EQ(status->store->confirmed->id, sent.store->confirmed->id);
  EXPECT_EQ(status->store->applied, Epoch{6});
  EXPECT_EQ(status->store->pending_bytes, 100U);
  EXPECT_EQ(status->store->confirmed_bytes, 200U);
  EXPECT_EQ(status->store->free_bytes, 300U);
}

TEST(ControlCodec, WhetherAPrimaryIsThereRoundTrip) {
  VolumeStatus sent = FakeVolume::default_status();
  for (const PrimaryPresence primary :
       {PrimaryPresence::kNotSaid, PrimaryPresence::kNever, PrimaryPresence::kConnected,
        PrimaryPresence::kAway, PrimaryPresence::kStopped}) {
    sent.store->primary = primary;
    const auto status = decode_volume_status(as_received(sent));
    ASSERT_TRUE(status) << status.error().message();
    EXPECT_EQ(status->store->primary, primary);
  }
  ParsedJson odd = as_received(sent);
  odd["backup"]["primary"] = "asleep";
  EXPECT_FALSE(decode_volume_status(odd));
}

TEST(ControlCodec, StatusOfAServerThatTellsNoLineage) {
  ParsedJson older = as_received(FakeVolume::default_status());
  older.erase("lineage");
  older["backup"].erase("timeline");
  const auto status = decode_volume_status(older);
  ASSERT_TRUE(status) << status.error().message();
  EXPECT_TRUE(status->lineage.empty());
  EXPECT_EQ(status->store->confirmed->id.number, Epoch{7});
  EXPECT_EQ(status->store->confirmed->id.timeline, Uuid{});
}

TEST(ControlCodec, LineageOfOddElementsIsRefused) {
  const ParsedJson told = as_received(FakeVolume::default_status());
  for (const char* const odd :
       {R"([7])", R"([{"timeline":"no"}])", R"("all")",
        R"([{"timeline":"66666666-7777-4888-9999-aaaaaaaaaaaa","checkpoint":-1}])"}) {
    ParsedJson status = told;
    status["lineage"] = ParsedJson::parse(odd);
    EXPECT_FALSE(decode_volume_status(status)) << odd;
  }
  ParsedJson status = told;
  status["backup"]["timeline"] = 7;
  EXPECT_FALSE(decode_volume_status(status));
}

TEST(ControlCodec, StatusOfAnEmptyVolumeRoundTrip) {
  const auto status = decode_volume_status(as_received(VolumeStatus{}));
  ASSERT_TRUE(status) << status.error().message();
  EXPECT_FALSE(status->last_checkpoint);
  EXPECT_FALSE(status->store);
}

TEST(ControlCodec, OutcomesRoundTrip) {
  const auto made = decode_checkpoint_outcome(
      as_received(CheckpointOutcome{sample_checkpoint(9), microseconds(77), milliseconds(88)}));
  ASSERT_TRUE(made);
  expect_same(made->checkpoint, sample_checkpoint(9));
  EXPECT_EQ(made->stall, microseconds(77));
  EXPECT_EQ(made->confirm, milliseconds(88));

  const auto rolled = decode_rollback_outcome(
      as_received(RollbackOutcome{sample_checkpoint(9), 4096, milliseconds(5), true}));
  ASSERT_TRUE(rolled);
  EXPECT_EQ(rolled->restored_bytes, 4096U);
  EXPECT_EQ(rolled->elapsed, milliseconds(5));
  EXPECT_TRUE(rolled->fenced);

  const VerifyOutcome sent{sample_checkpoint(9), 10, 20, 8192, {{0, 4096}, {1U << 20U, 4096}}};
  const auto verified = decode_verify_outcome(as_received(sent));
  ASSERT_TRUE(verified);
  EXPECT_EQ(verified->checked_bytes, 10U);
  EXPECT_EQ(verified->skipped_bytes, 20U);
  EXPECT_EQ(verified->mismatched_bytes, 8192U);
  EXPECT_EQ(verified->mismatches, sent.mismatches);

  const auto list = decode_checkpoints(
      as_received(std::vector<CheckpointInfo>{sample_checkpoint(1), sample_checkpoint(2)}));
  ASSERT_TRUE(list);
  ASSERT_EQ(list->size(), 2U);
  expect_same((*list)[1], sample_checkpoint(2));
}

TEST(ControlCodec, LargestNumbersRoundTrip) {
  VerifyOutcome sent{sample_checkpoint(1), UINT64_MAX, UINT64_MAX, UINT64_MAX, {}};
  const auto verified = decode_verify_outcome(as_received(sent));
  ASSERT_TRUE(verified);
  EXPECT_EQ(verified->checked_bytes, UINT64_MAX);
}

TEST(ControlCodec, EveryKindOfErrorRoundTrips) {
  for (int i = 0; i <= static_cast<int>(ErrorKind::kVoid); ++i) {
    const auto kind = static_cast<ErrorKind>(i);
    const auto answer = decode_answer(encode_error({kind, EIO, "read disk.img"}));
    ASSERT_TRUE(answer);
    const auto& error = std::get<Error>(*answer);
    EXPECT_EQ(error.kind, kind);
    EXPECT_EQ(error.message(), "read disk.img: Input/output error");
  }
}

TEST(ControlCodec, ExitCodes) {
  const std::pair<ErrorKind, int> table[] = {
      {ErrorKind::kIo, 1},      {ErrorKind::kNoSpace, 1},      {ErrorKind::kVoid, 1},
      {ErrorKind::kCorrupt, 1}, {ErrorKind::kInvalid, 2},      {ErrorKind::kNotFound, 4},
      {ErrorKind::kBusy, 5},    {ErrorKind::kTimeout, 7},      {ErrorKind::kMismatch, 8},
      {ErrorKind::kHalfway, 9}, {ErrorKind::kUnreachable, 10}, {ErrorKind::kFenced, 11},
      {ErrorKind::kDenied, 12}, {ErrorKind::kUnreadable, 1},
  };
  for (const auto& [kind, code] : table) {
    EXPECT_EQ(exit_code_of(kind), code) << word_of(kind);
  }
}

TEST(ControlCodec, ErrorOfALaterServerIsAFailure) {
  const auto answer = decode_answer(
      R"({"schema":1,"type":"error","kind":"eclipse","exit_code":99,"message":"dark"})");
  ASSERT_TRUE(answer);
  EXPECT_EQ(std::get<Error>(*answer).kind, ErrorKind::kIo);
}

TEST(ControlCodec, LinesAreExactlySo) {
  EXPECT_EQ(encode_request(StatusRequest{}), R"({"schema":1,"command":"status"})");
  EXPECT_EQ(
      encode_request(RollbackRequest{}),
      R"({"schema":1,"command":"rollback","checkpoint":"last","clients":"refuse","dry_run":false})");
  EXPECT_EQ(encode_request(ExportRequest{}),
            R"({"schema":1,"command":"export","checkpoint":"last"})");
  EXPECT_EQ(encode_extent({{8192, 4096}, false}),
            R"({"schema":1,"type":"data","offset":8192,"length":4096})");
  EXPECT_EQ(encode_extent({{0, 8192}, true}),
            R"({"schema":1,"type":"hole","offset":0,"length":8192})");
  EXPECT_EQ(encode_cut({Epoch{7}}), R"({"schema":1,"type":"cut","checkpoint":7})");
  EXPECT_EQ(encode_progress({5, 10}),
            R"({"schema":1,"type":"progress","done_bytes":5,"total_bytes":10})");
  EXPECT_EQ(encode_error({ErrorKind::kBusy, 0, "no"}),
            R"({"schema":1,"type":"error","kind":"busy","exit_code":5,"message":"no"})");
  EXPECT_EQ(encode_result(Json::object()), R"({"schema":1,"type":"result"})");
}

TEST(ControlCodec, StatusHasTheFieldsThatScriptsRelyOn) {
  const ParsedJson status = as_received(FakeVolume::default_status());
  for (const char* field : {"state",
                            "role",
                            "volume",
                            "timeline",
                            "lineage",
                            "size_bytes",
                            "io",
                            "protected",
                            "epoch",
                            "last_checkpoint",
                            "changed_bytes",
                            "preserved_blocks",
                            "stall_us_max",
                            "connections",
                            "backup",
                            "checkpoint_interval_s",
                            "made_checkpoints",
                            "void_checkpoints",
                            "missed_checkpoints",
                            "rollbacks",
                            "shipped_bytes",
                            "confirm_ms_last"}) {
    EXPECT_TRUE(status.contains(field)) << field;
  }
  for (const char* field : {"address", "state", "error", "confirmed", "timeline", "applied",
                            "unshipped_bytes", "pending_bytes", "confirmed_bytes", "free_bytes"}) {
    EXPECT_TRUE(status["backup"].contains(field)) << field;
  }
  EXPECT_EQ(status["last_checkpoint"]["checkpoint"], 7);
  EXPECT_EQ(status["last_checkpoint"]["time"], "2026-01-31T12:00:00.123Z");
}

}  // namespace
}  // namespace ckpt
