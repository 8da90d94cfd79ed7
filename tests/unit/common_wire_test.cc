// SPDX-License-Identifier: Apache-2.0
// Frames and their bodies to bytes and back; nothing damaged or hostile passes.
// docs/wire-protocol.md.
#include <gtest/gtest.h>

#include <functional>

#include "common/checksum.h"
#include "common/copy_message.h"
#include "common/message.h"
#include "common/stale_message.h"
#include "common/volume_message.h"
#include "tests/unit/golden_file.h"

namespace ckpt::test {
namespace {

constexpr uint64_t kConnection = 0x0102030405060708;

Uuid wire_uuid(uint8_t value) {
  Uuid uuid;
  uuid.bytes.fill(value);
  return uuid;
}

CheckpointInfo wire_checkpoint(uint64_t number) {
  return {.id = {wire_uuid(0x22), {number}},
          .parent = {wire_uuid(0x22), {number - 1}},
          .digest = digest_of(as_bytes_of("digest")),
          .time = WallTime(1'700'000'000'000'000'000),
          .name = "before",
          .message = "a message",
          .changed_bytes = 8192,
          .shipped_bytes = 100};
}

// A frame as it goes over the wire.
struct Sample {
  const char* file;
  FrameType type;
  std::vector<std::byte> body;
  // Whether a body is taken for one of this type.
  std::function<bool(ConstByteSpan)> takes;
};

template <typename T>
auto taken_by(Result<T> (*decode)(ConstByteSpan)) {
  return [decode](ConstByteSpan body) { return decode(body).has_value(); };
}

std::vector<Sample> samples() {
  const EncodedBatch batch =
      encode_batch({.volume = wire_uuid(0x11), .timeline = wire_uuid(0x22), .epoch = {7}},
                   {{0, kBlockBytes, ExtentKind::kZero}, {8192, 16}},
                   as_bytes_of("0123456789abcdef"), {Codec::kNone, 1});
  const std::vector<std::byte> data(100, std::byte{7});
  const std::vector<std::byte> piece = encode_piece(4096, data, {Codec::kNone, 1});
  // As the store does.
  const auto takes_piece = [](ConstByteSpan body) {
    const auto request = decode_attach(body);
    return request && check_piece(request->piece);
  };
  StoreStatus status;
  status.address = "unix:/run/store";
  status.state = "connected";
  status.applied = {6};
  status.confirmed = wire_checkpoint(7);
  StoreStatus relaying = status;
  relaying.relays = {{"third:7000", Epoch{6}, ""}, {"fourth:7000", std::nullopt, "not there"}};
  StoreStatus watching = status;
  watching.primary = PrimaryPresence::kAway;
  return {
      {"hello", FrameType::kHello,
       encode_hello({.volume = wire_uuid(0x11),
                     .size_bytes = 8208,
                     .role = Role::kSession,
                     .software = "ckpt 0.1.0"}),
       taken_by(decode_hello)},
      {"welcome", FrameType::kWelcome,
       encode_welcome({.silence = std::chrono::seconds(15),
                       .connection = kConnection,
                       .size_bytes = 8208,
                       .window_bytes = 16777216,
                       .software = "ckpt 0.1.0"}),
       taken_by(decode_welcome)},
      {"greeting", FrameType::kGreeting, encode_greeting({wire_checkpoint(7), 99}),
       taken_by(decode_greeting)},
      {"greeting-none", FrameType::kGreeting, encode_greeting({std::nullopt, 0}),
       taken_by(decode_greeting)},
      {"greeting-bases", FrameType::kGreeting,
       encode_greeting(
           {std::nullopt,
            99,
            true,
            {{{wire_uuid(0x22), {7}}, digest_of({})}, {{wire_uuid(0x22), {9}}, digest_of(data)}}}),
       taken_by(decode_greeting)},
      {"stale", FrameType::kStale, encode_stale(4096), taken_by(decode_stale)},
      {"stale-list", FrameType::kStaleList,
       encode_stale_list(std::vector<BlockRange>{{3, 4}, {4, 10}}), taken_by(decode_stale_list)},
      {"accept", FrameType::kAccept, encode_accept(99), taken_by(decode_accept)},
      {"batch", FrameType::kBatch, encode_batch_body(batch), taken_by(decode_batch_body)},
      {"confirm", FrameType::kConfirm,
       encode_confirmation({wire_checkpoint(7), {{{5}, digest_of({})}, {{7}, digest_of({})}}}),
       taken_by(decode_confirmation)},
      {"confirm-copy", FrameType::kConfirmCopy,
       encode_copy({{wire_checkpoint(7), {{{5}, digest_of({})}}}, {{wire_uuid(0x22), {3}}}}),
       taken_by(decode_copy)},
      {"forks", FrameType::kForks, encode_forks({{wire_uuid(0x22), {3}}, {wire_uuid(0x23), {3}}}),
       taken_by(decode_forks)},
      {"roll-back", FrameType::kRollBack,
       encode_roll_back({{wire_uuid(0x22), {7}}, wire_uuid(0x33)}), taken_by(decode_roll_back)},
      {"read", FrameType::kRead, encode_read({4096, 65536}), taken_by(decode_read)},
      {"read-ranges", FrameType::kReadRanges,
       encode_read_ranges(std::vector<ByteRange>{{0, 4096}, {8192, 16}}),
       taken_by(decode_read_ranges)},
      {"digests", FrameType::kDigests, encode_digests({{3, 7}, 0, 5}), taken_by(decode_digests)},
      {"digest-list", FrameType::kDigestList,
       encode_digest_list(std::vector<Digest>{digest_of({}), digest_of(data)}),
       taken_by(decode_digest_list)},
      {"attach", FrameType::kAttach, encode_attach({{7}, 1, piece}), takes_piece},
      {"read-attachment", FrameType::kReadAttachment, encode_read_attachment({{7}, "memory"}),
       taken_by(decode_read_attachment)},
      {"piece", FrameType::kPiece, piece, taken_by(check_piece)},
      {"next-data", FrameType::kNextData, encode_next_data(8192), taken_by(decode_next_data)},
      {"data-range", FrameType::kDataRange, encode_data_range(ByteRange{4096, 8192}),
       taken_by(decode_data_range)},
      {"export", FrameType::kExport, encode_export(Epoch{7}), taken_by(decode_export)},
      {"export-begins", FrameType::kExportBegins, encode_export_begins({wire_checkpoint(7), 8208}),
       taken_by(decode_export_begins)},
      {"content", FrameType::kContent, encode_content({4096, data}), taken_by(decode_content)},
      {"hole", FrameType::kHole, encode_hole({0, 4096}), taken_by(decode_hole)},
      {"checkpoints", FrameType::kCheckpoints, encode_checkpoints({6}),
       taken_by(decode_checkpoints)},
      {"checkpoint-list", FrameType::kCheckpointList,
       encode_checkpoint_list({{wire_checkpoint(6), wire_checkpoint(7)}, true}),
       taken_by(decode_checkpoint_list)},
      {"store-status", FrameType::kStoreStatus, encode_store_status(status),
       taken_by(decode_store_status)},
      {"store-status-relays", FrameType::kStoreStatus, encode_store_status(relaying),
       taken_by(decode_store_status)},
      {"store-status-primary", FrameType::kStoreStatus, encode_store_status(watching),
       taken_by(decode_store_status)},
      {"visit", FrameType::kHello,
       encode_hello(
           {.features = kHasNames, .volume = {}, .role = Role::kVisitor, .software = "ckpt 0.1.0"}),
       taken_by(decode_hello)},
      {"name", FrameType::kName, encode_name("accounts"), taken_by(decode_name)},
      {"begin-session", FrameType::kBeginSession,
       encode_place({digest_of(as_bytes_of("identity")), "web1", "/srv/disk.img"}),
       taken_by(decode_place)},
      {"promote", FrameType::kPromote, encode_promote({{wire_uuid(0x22), {7}}, wire_uuid(0x33)}),
       taken_by(decode_promote)},
      {"release", FrameType::kRelease, encode_release({wire_uuid(0x11), true}),
       taken_by(decode_release)},
      {"volumes", FrameType::kVolumes, encode_volumes({wire_uuid(0x11), "accounts"}),
       taken_by(decode_volumes)},
      {"volume-list", FrameType::kVolumeList,
       encode_volume_list({{{wire_uuid(0x11), 8208, "accounts"}, {wire_uuid(0x22), 0, ""}}, true}),
       taken_by(decode_volume_list)},
      {"failed", FrameType::kFailed, encode_failed({ErrorKind::kNoSpace, 28, "write backup.img"}),
       taken_by(decode_failed)},
  };
}

std::vector<std::byte> frame(const Sample& sample) {
  const bool is_first = sample.type == FrameType::kHello || sample.type == FrameType::kWelcome;
  const uint64_t connection = is_first ? 0 : kConnection;
  auto bytes = encode_frame_header(frame_of(sample.type, 1, connection, sample.body));
  bytes.insert(bytes.end(), sample.body.begin(), sample.body.end());
  return bytes;
}

// The whole of it, as a peer would.
bool is_taken(const Sample& sample, ConstByteSpan bytes) {
  if (bytes.size() < kFrameHeaderBytes) {
    return false;
  }
  const auto header = decode_frame_header(bytes.first(kFrameHeaderBytes));
  const ConstByteSpan body = bytes.subspan(kFrameHeaderBytes);
  return header && header->type == sample.type && check_body(*header, body) && sample.takes(body);
}

// With the check sums right again, as of a hostile peer.
std::vector<std::byte> sealed(const Sample& sample, const std::vector<std::byte>& body) {
  return frame({sample.file, sample.type, body, sample.takes});
}

TEST(Wire, EveryFrameIsAsItAlwaysWas) {
  for (const Sample& sample : samples()) {
    const auto bytes = frame(sample);
    expect_golden(std::string("wire/") + sample.file, bytes);
    EXPECT_TRUE(is_taken(sample, read_golden(std::string("wire/") + sample.file))) << sample.file;
    EXPECT_LE(sample.body.size(), body_bytes_max(sample.type)) << sample.file;
    EXPECT_STRNE(frame_name(sample.type), "unknown");
  }
  expect_documented("wire-protocol.md", "wire/hello");
}

TEST(Wire, OneFlippedBitIsNoticed) {
  for (const Sample& sample : samples()) {
    auto bytes = frame(sample);
    // Of a batch's payload only the batch's own digest tells.
    const size_t vouched =
        sample.type == FrameType::kBatch ? kFrameHeaderBytes + kBatchHeaderBytes : bytes.size();
    for (size_t bit = 0; bit < vouched * 8; ++bit) {
      const auto flip = static_cast<std::byte>(1U << (bit % 8));
      bytes[bit / 8] ^= flip;
      EXPECT_FALSE(is_taken(sample, bytes)) << sample.file << ", bit " << bit;
      bytes[bit / 8] ^= flip;
    }
  }
}

TEST(Wire, WhatIsCutShortOrTooLongIsNoticed) {
  for (const Sample& sample : samples()) {
    if (sample.type == FrameType::kContent) {
      continue;  // its content ends where the body does
    }
    for (size_t length = 0; length < sample.body.size(); ++length) {
      const std::vector<std::byte> part(sample.body.begin(),
                                        sample.body.begin() + static_cast<ptrdiff_t>(length));
      EXPECT_FALSE(is_taken(sample, sealed(sample, part))) << sample.file << ", " << length;
    }
    auto longer = sample.body;
    longer.push_back(std::byte{0});
    EXPECT_FALSE(sample.takes(longer)) << sample.file;
  }
}

// Every field with values that a peer may choose: no crash, and no memory but the body's.
TEST(Wire, AnyByteMayBeAnything) {
  for (const Sample& sample : samples()) {
    auto body = sample.body;
    for (size_t at = 0; at < body.size(); ++at) {
      const std::byte before = body[at];
      for (const unsigned value : {0x00U, 0x01U, 0x7fU, 0x80U, 0xffU}) {
        body[at] = static_cast<std::byte>(value);
        (void)sample.takes(body);
      }
      body[at] = before;
    }
    EXPECT_TRUE(sample.takes(body)) << sample.file;
  }
}

TEST(Wire, FieldsOutOfTheirLimits) {
  Hello hello{.volume = wire_uuid(1), .size_bytes = 4096, .role = Role::kSession, .software = ""};
  EXPECT_TRUE(decode_hello(encode_hello(hello)));
  const auto refused = [&](const std::function<void(Hello&)>& change) {
    Hello changed = hello;
    change(changed);
    return !decode_hello(encode_hello(changed));
  };
  EXPECT_TRUE(refused([](Hello& h) { h.version = 0; }));
  EXPECT_TRUE(refused([](Hello& h) { h.volume = Uuid{}; }));
  EXPECT_TRUE(refused([](Hello& h) { h.size_bytes = 0; }));
  EXPECT_TRUE(refused([](Hello& h) { h.size_bytes = kDiskBytesMax + 1; }));
  EXPECT_TRUE(refused([](Hello& h) { h.role = static_cast<Role>(3); }));
  EXPECT_FALSE(refused([](Hello& h) { h.size_bytes = 0, h.role = Role::kReader; }));
  EXPECT_FALSE(refused([](Hello& h) { h.software = std::string(1000, 'x'); }));  // cut off

  EXPECT_FALSE(decode_read(encode_read({0, 0})));
  EXPECT_FALSE(decode_read(encode_read({0, static_cast<uint32_t>(kPieceBytes) + 1})));
  EXPECT_FALSE(decode_read(encode_read({~uint64_t{0}, 4096})));
  EXPECT_FALSE(decode_hole(encode_hole({4096, ~uint64_t{0} - 4095})));
  EXPECT_FALSE(decode_content(encode_content({0, {}})));
  EXPECT_FALSE(decode_accept(encode_accept(0)));
  EXPECT_FALSE(decode_export(encode_export(Epoch{0})));
  EXPECT_FALSE(decode_roll_back(encode_roll_back({{wire_uuid(1), {1}}, Uuid{}})));
  EXPECT_FALSE(decode_checkpoint_list(
      encode_checkpoint_list({{wire_checkpoint(7), wire_checkpoint(7)}, false})));
}

TEST(Wire, APlaceMayBeShownOnATerminal) {
  const Digest one = digest_of(as_bytes_of("one"));
  const auto is_taken = [](const PrimaryPlace& place) {
    return decode_place(encode_place(place)).has_value();
  };
  EXPECT_TRUE(is_taken({one, "web1", "/srv/d\xc3\xa4sk.img"}));
  EXPECT_FALSE(is_taken({Digest{}, "web1", "/srv/disk.img"}));
  EXPECT_FALSE(is_taken({one, "", "/srv/disk.img"}));
  EXPECT_FALSE(is_taken({one, "web1", ""}));
  for (const std::string evil : {"/srv/\x1b[2J", "/srv/\n", "/srv/\x7f", "/srv/\xc2\x9b", "\xff"}) {
    EXPECT_FALSE(is_taken({one, "web1", evil}));
    EXPECT_FALSE(is_taken({one, evil, "/srv/disk.img"}));
    EXPECT_TRUE(is_taken(make_place(one, evil, evil)));
  }
  EXPECT_FALSE(is_taken({one, std::string(kHostBytesMax + 1, 'h'), "/srv/disk.img"}));
  EXPECT_FALSE(is_taken({one, "web1", "/" + std::string(kImagePathBytesMax, 'p')}));
}

// The end of a path that is too long is what tells it from others, and no character is cut in two.
TEST(Wire, APlaceThatIsTooLongIsShortened) {
  const Digest one = digest_of(as_bytes_of("one"));
  for (size_t shift = 0; shift < 3; ++shift) {
    std::string path(shift, 'x');
    while (path.size() < 4096) {
      path += "\xe2\x82\xac";
    }
    const PrimaryPlace place = make_place(one, std::string(4096, 'h'), path + "/disk.img");
    const auto body = encode_place(place);
    EXPECT_LE(body.size(), body_bytes_max(FrameType::kBeginSession));
    EXPECT_TRUE(decode_place(body));
    EXPECT_TRUE(place.path.starts_with("...\xe2\x82\xac"));
    EXPECT_TRUE(place.path.ends_with("/disk.img"));
    EXPECT_GT(place.path.size() + 3, kImagePathBytesMax);
  }
  const PrimaryPlace nameless = make_place(one, "", "");
  EXPECT_EQ(nameless.to_string(), "?:?");
}

TEST(Wire, LongestBodiesFit) {
  CheckpointInfo longest = wire_checkpoint(70000);
  longest.name = std::string(255, 'n');
  longest.message = std::string(4096, 'm');
  const Confirmation confirmation{longest, std::vector<CoveredEpoch>(kCoveredEpochsMax)};
  const auto confirm = encode_confirmation(confirmation);
  EXPECT_LE(confirm.size(), body_bytes_max(FrameType::kConfirm));
  EXPECT_TRUE(decode_confirmation(confirm));
  CheckpointList list;
  for (uint64_t number = 1; number <= kCheckpointsPerAnswer; ++number) {
    longest.id.number = {number};
    longest.parent.number = {number - 1};
    list.checkpoints.push_back(longest);
  }
  const auto listed = encode_checkpoint_list(list);
  EXPECT_LE(listed.size(), body_bytes_max(FrameType::kCheckpointList));
  EXPECT_TRUE(decode_checkpoint_list(listed));
  list.checkpoints.push_back(longest);
  list.checkpoints.back().id.number = {kCheckpointsPerAnswer + 1};
  EXPECT_FALSE(decode_checkpoint_list(encode_checkpoint_list(list)));
  StoreStatus status;
  status.error = std::string(100000, 'e');
  status.confirmed = longest;
  status.relays.assign(kRelaysMax, {status.error, Epoch{1}, status.error});
  EXPECT_LE(encode_store_status(status).size(), body_bytes_max(FrameType::kStoreStatus));
  EXPECT_TRUE(decode_store_status(encode_store_status(status)));
}

TEST(Wire, EveryKindOfErrorComesOver) {
  for (int kind = 0; kind <= static_cast<int>(ErrorKind::kVoid); ++kind) {
    const Error error{static_cast<ErrorKind>(kind), 28, "what"};
    const auto back = decode_failed(encode_failed(error));
    ASSERT_TRUE(back);
    EXPECT_EQ(back->kind, error.kind);
    EXPECT_EQ(back->message(), error.message());
  }
  Encoder later;
  later.put(uint32_t{1000});
  later.put(uint32_t{0});
  later.put_string("of a later version");
  // Cut at 4096 bytes, but not within a character.
  std::string longest = std::string(4095, 'x') + "\xc3\xa4";
  EXPECT_EQ(decode_failed(encode_failed({ErrorKind::kIo, 0, longest}))->context,
            std::string(4095, 'x'));
  const auto unknown = decode_failed(later.bytes());
  ASSERT_TRUE(unknown);
  EXPECT_EQ(unknown->kind, ErrorKind::kIo);
}

TEST(Frame, WhatIsNotKnownIsToldFromWhatIsDamaged) {
  const auto header_with = [](size_t at, uint8_t value) {
    auto bytes = encode_frame_header(frame_of(FrameType::kPing, 1, kConnection, {}));
    bytes[at] = std::byte{value};
    Encoder crc;
    crc.put(crc32c(ConstByteSpan(bytes).first(60)));
    copy_bytes(crc.bytes(), ByteSpan(bytes).subspan(60));
    return decode_frame_header(bytes);
  };
  EXPECT_TRUE(header_with(6, 12));
  EXPECT_EQ(header_with(4, 2).error().kind, ErrorKind::kInvalid);    // version
  EXPECT_EQ(header_with(6, 77).error().kind, ErrorKind::kInvalid);   // type
  EXPECT_EQ(header_with(0, 'x').error().kind, ErrorKind::kCorrupt);  // magic
  EXPECT_EQ(header_with(8, 0).error().kind, ErrorKind::kCorrupt);    // request
  EXPECT_EQ(header_with(24, 1).error().kind, ErrorKind::kCorrupt);   // a ping has no body
  EXPECT_EQ(header_with(28, 1).error().kind, ErrorKind::kCorrupt);   // reserved
  EXPECT_EQ(header_with(48, 1).error().kind, ErrorKind::kCorrupt);   // reserved
  EXPECT_FALSE(decode_frame_header({}));
}

TEST(Frame, RequestsAreToldFromAnswers) {
  EXPECT_TRUE(is_request(FrameType::kPing));
  EXPECT_FALSE(is_request(FrameType::kDone));
}

}  // namespace
}  // namespace ckpt::test
