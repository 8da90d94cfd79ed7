// SPDX-License-Identifier: Apache-2.0
// What stands in journal and `volume`, to bytes and back, and every flipped bit of it.
#include "backupd/store/store_record.h"
#include "common/checkpoint_codec.h"
#include "tests/unit/store_peer.h"

namespace ckpt::test {
namespace {

CheckpointInfo a_checkpoint(uint64_t number) {
  CheckpointInfo checkpoint;
  checkpoint.id = {test_uuid(2), {number}};
  checkpoint.parent = {test_uuid(1), {number - 1}};
  checkpoint.digest.bytes.fill(7);
  checkpoint.time = WallTime(-5);
  checkpoint.name = "before the upgrade";
  checkpoint.message = std::string(4096, 'm');
  checkpoint.changed_bytes = 1234567;
  checkpoint.shipped_bytes = 7654321;
  return checkpoint;
}

ConfirmRecord a_confirm_record() {
  ConfirmRecord record;
  record.checkpoint = a_checkpoint(9);
  record.previous = {{8}, 4711, record.checkpoint.digest};
  record.covered = {{{9}, 128, {}, record.checkpoint.digest}};
  return record;
}

StoreRecord a_store_record() {
  StoreRecord record;
  record.volume = test_uuid(1);
  record.size_bytes = 65536;
  record.incarnation = 99;
  record.last = a_checkpoint(9);
  record.applied = {8};
  record.confirmed = {{9}, 4711, record.last->digest};
  record.forks = {{test_uuid(5), {3}}, {test_uuid(6), {3}}};
  return record;
}

// No single flipped bit is read as something valid.
template <typename Decode>
void expect_no_flip_passes(std::vector<std::byte> bytes, Decode decode) {
  ASSERT_TRUE(decode(bytes));
  for (size_t i = 0; i < bytes.size() * 8; ++i) {
    bytes[i / 8] ^= std::byte{1} << (i % 8);
    ASSERT_FALSE(decode(bytes)) << "bit " << i;
    bytes[i / 8] ^= std::byte{1} << (i % 8);
  }
}

// Nothing that is cut off or too long is read as something valid.
template <typename Decode>
void expect_no_other_length_passes(std::vector<std::byte> bytes, Decode decode) {
  for (size_t length = 0; length < bytes.size(); ++length) {
    ASSERT_FALSE(decode(ConstByteSpan(bytes).first(length))) << "length " << length;
  }
  bytes.push_back({});
  ASSERT_FALSE(decode(bytes));
}

TEST(StoreFormat, JournalNames) {
  EXPECT_EQ(journal_name({7}), "00000000000000000007");
  EXPECT_EQ(journal_name({UINT64_MAX}), "18446744073709551615");
  EXPECT_EQ(parse_journal_name("18446744073709551615"), Epoch{UINT64_MAX});
  for (const char* name :
       {"", "7", "0000000000000000007", "18446744073709551616", "99999999999999999999",
        "0000000000000000000x", "+0000000000000000007"}) {
    EXPECT_EQ(parse_journal_name(name), Epoch{0}) << name;
  }
}

TEST(StoreFormat, JournalHeader) {
  const JournalHeader header{test_uuid(1), test_uuid(2), {77}, 99};
  const auto bytes = encode_journal_header(header);
  ASSERT_EQ(bytes.size(), kJournalHeaderBytes);
  EXPECT_EQ(*decode_journal_header(bytes), header);
  expect_no_flip_passes(bytes, decode_journal_header);
  expect_no_other_length_passes(bytes, decode_journal_header);
}

TEST(StoreFormat, JournalFrame) {
  const Frame frame{RecordType::kConfirm, 1000, {77}, 4711, a_checkpoint(9).digest};
  const auto bytes = encode_frame(frame);
  ASSERT_EQ(bytes.size(), kFrameBytes);
  const auto decoded = decode_frame(bytes);
  ASSERT_DONE(decoded);
  EXPECT_EQ(encode_frame(*decoded), bytes);
  expect_no_flip_passes(bytes, decode_frame);
  expect_no_other_length_passes(bytes, decode_frame);
}

TEST(StoreFormat, FrameLimits) {
  const auto passes = [](RecordType type, uint64_t body_bytes) {
    return decode_frame(encode_frame({type, body_bytes, {7}, 128, {}})).has_value();
  };
  EXPECT_FALSE(passes(RecordType::kBatch, kBatchHeaderBytes));
  EXPECT_TRUE(passes(RecordType::kBatch, kBatchHeaderBytes + 1));
  EXPECT_FALSE(passes(RecordType::kBatch, uint64_t{100} << 20U));
  EXPECT_FALSE(passes(RecordType::kConfirm, 0));
  EXPECT_TRUE(passes(RecordType::kConfirm, kConfirmBytesMax));
  EXPECT_FALSE(passes(RecordType::kConfirm, kConfirmBytesMax + 1));
  EXPECT_FALSE(passes(static_cast<RecordType>(3), 1000));
}

TEST(StoreFormat, ConfirmRecord) {
  const ConfirmRecord record = a_confirm_record();
  const auto bytes = encode_confirm(record);
  const auto decoded = decode_confirm(bytes);
  ASSERT_DONE(decoded);
  EXPECT_EQ(encode_confirm(*decoded), bytes);
  EXPECT_EQ(decoded->checkpoint.time, record.checkpoint.time);
  EXPECT_EQ(decoded->covered, record.covered);
  expect_no_flip_passes(bytes, decode_confirm);
  expect_no_other_length_passes(bytes, decode_confirm);
}

TEST(StoreFormat, ConfirmRecordMustMakeSense) {
  const auto passes = [](auto change) {
    ConfirmRecord record = a_confirm_record();
    change(record);
    return decode_confirm(encode_confirm(record)).has_value();
  };
  EXPECT_TRUE(passes([](ConfirmRecord& record) { record.covered.clear(); }));
  EXPECT_TRUE(passes([](ConfirmRecord& record) { record.checkpoint.parent.number = {0}; }));
  EXPECT_FALSE(passes([](ConfirmRecord& record) { record.covered[0].epoch = {8}; }));
  EXPECT_FALSE(passes([](ConfirmRecord& record) { record.covered[0].epoch = {10}; }));
  EXPECT_FALSE(passes([](ConfirmRecord& record) { record.covered.push_back(record.covered[0]); }));
  EXPECT_FALSE(passes([](ConfirmRecord& record) { record.previous.segment = {9}; }));
  EXPECT_FALSE(passes([](ConfirmRecord& record) { record.checkpoint.parent.number = {9}; }));
  EXPECT_FALSE(passes([](ConfirmRecord& record) { record.checkpoint.id.timeline = {}; }));
  EXPECT_FALSE(passes([](ConfirmRecord& record) { record.checkpoint.name.resize(256); }));
}

TEST(StoreFormat, LongestConfirmRecordFits) {
  ConfirmRecord record = a_confirm_record();
  record.checkpoint.id.number = {kCoveredEpochsMax + 10};
  record.covered.clear();
  for (uint64_t epoch = 0; epoch < kCoveredEpochsMax; ++epoch) {
    record.covered.push_back({{epoch + 9}, 128, {}, {}});
  }
  const auto bytes = encode_confirm(record);
  EXPECT_LE(bytes.size(), kConfirmBytesMax);
  EXPECT_TRUE(decode_confirm(bytes));
}

TEST(StoreFormat, StoreRecord) {
  const auto bytes = encode_store_record(a_store_record());
  const auto decoded = decode_store_record(bytes);
  ASSERT_DONE(decoded);
  EXPECT_EQ(encode_store_record(*decoded), bytes);
  EXPECT_EQ(decoded->forks, a_store_record().forks);
  expect_no_other_length_passes(bytes, decode_store_record);
  StoreRecord empty;
  empty.volume = test_uuid(1);
  EXPECT_TRUE(decode_store_record(encode_store_record(empty)));
  StoreRecord promoted = a_store_record();
  EXPECT_FALSE(decoded->promoted);
  promoted.promoted = true;
  EXPECT_TRUE(decode_store_record(encode_store_record(promoted))->promoted);
  StoreRecord copies = a_store_record();
  EXPECT_FALSE(decoded->has_copies);
  copies.has_copies = true;
  EXPECT_TRUE(decode_store_record(encode_store_record(copies))->has_copies);
  empty.promoted = true;  // nothing could have been
  EXPECT_FALSE(decode_store_record(encode_store_record(empty)));
}

StoreRecord a_rejoined_record() {
  StoreRecord record;
  record.volume = test_uuid(1);
  record.size_bytes = 65536;
  record.rejoined = {Digest{{2}},
                     {{{test_uuid(3), {7}}, Digest{{4}}}, {{test_uuid(3), {9}}, Digest{{5}}}}};
  return record;
}

TEST(StoreFormat, StoreRecordOfAnImageThatRejoined) {
  const auto bytes = encode_store_record(a_rejoined_record());
  const auto decoded = decode_store_record(bytes);
  ASSERT_DONE(decoded);
  ASSERT_TRUE(decoded->rejoined);
  EXPECT_EQ(decoded->rejoined->stale, Digest{{2}});
  EXPECT_EQ(decoded->rejoined->bases, a_rejoined_record().rejoined->bases);
  expect_no_other_length_passes(bytes, decode_store_record);
  StoreRecord record = a_rejoined_record();
  record.rejoined->bases.clear();  // nothing is known
  EXPECT_TRUE(decode_store_record(encode_store_record(record)));
  record.rejoined->bases.assign(kBasesMax + 1, {});
  EXPECT_FALSE(decode_store_record(encode_store_record(record)));
  StoreRecord both = a_store_record();
  both.rejoined.emplace();
  EXPECT_FALSE(decode_store_record(encode_store_record(both)));
}

TEST(StoreFormat, StoreRecordMustMakeSense) {
  const auto passes = [](auto change) {
    StoreRecord record = a_store_record();
    change(record);
    return decode_store_record(encode_store_record(record)).has_value();
  };
  EXPECT_TRUE(passes([](StoreRecord&) {}));
  EXPECT_FALSE(passes([](StoreRecord& record) { record.applied = {10}; }));
  EXPECT_FALSE(passes([](StoreRecord& record) { record.applied = {9}; }));  // and a position
  EXPECT_FALSE(passes([](StoreRecord& record) { record.confirmed = {}; }));
  EXPECT_FALSE(passes([](StoreRecord& record) { record.confirmed.segment = {8}; }));
  EXPECT_FALSE(passes([](StoreRecord& record) { record.last.reset(); }));
}

TEST(StoreFormat, NewerVersionsAndFeaturesAreRefusedAsSuch) {
  const auto kind_of = [](size_t at) {
    auto bytes = encode_store_record(a_store_record());
    bytes[at] = std::byte{8};
    return decode_store_record(bytes).error().kind;
  };
  EXPECT_EQ(kind_of(8), ErrorKind::kInvalid);   // version
  EXPECT_EQ(kind_of(16), ErrorKind::kInvalid);  // a feature that a reader must know
  EXPECT_EQ(kind_of(10), ErrorKind::kCorrupt);  // reserved
  auto bytes = encode_store_record(a_store_record());
  bytes[24] = std::byte{2};  // a feature that it may ignore
  EXPECT_TRUE(decode_store_record(bytes));
}

}  // namespace
}  // namespace ckpt::test
