// SPDX-License-Identifier: Apache-2.0
// Batches to bytes and back; nothing damaged or hostile passes. docs/batch-format.md.
#include <gtest/gtest.h>
#include <zstd.h>

#include <algorithm>
#include <functional>

#include "common/batch.h"
#include "common/checksum.h"
#include "tests/unit/golden_file.h"

namespace ckpt::test {
namespace {

// Two blocks and one of 16 bytes.
constexpr uint64_t kDiskBytes = 2 * kBlockBytes + 16;

Uuid uuid_of(uint8_t value) {
  Uuid uuid;
  uuid.bytes.fill(value);
  return uuid;
}

BatchHeader identity() {
  return {.volume = uuid_of(0x11),
          .timeline = uuid_of(0x22),
          .epoch = {7},
          .sequence = 300,
          .incarnation = 0x1122334455667788};
}

// Bytes that do not compress.
std::vector<std::byte> noise(size_t bytes) {
  std::vector<std::byte> out(bytes);
  uint64_t state = 88172645463325252U;
  for (std::byte& byte : out) {
    state ^= state << 13U;
    state ^= state >> 7U;
    state ^= state << 17U;
    byte = static_cast<std::byte>(state >> 56U);
  }
  return out;
}

std::vector<std::byte> text(size_t bytes) {
  std::vector<std::byte> out(bytes);
  for (size_t i = 0; i < bytes; ++i) {
    out[i] = static_cast<std::byte>('a' + i % 16);
  }
  return out;
}

// The worked example: a zero extent of one block, and the short last block.
EncodedBatch example() {
  return encode_batch(identity(), {{0, kBlockBytes, ExtentKind::kZero}, {2 * kBlockBytes, 16}},
                      text(16), {Codec::kNone, 1});
}

// The same with all that was declared, after a change that somebody made on purpose: the digest is
// right.
Result<Batch> decode_forged(EncodedBatch batch, const std::function<void(EncodedBatch&)>& forge) {
  forge(batch);
  batch.header.payload_digest = digest_of(batch.payload);
  return decode_batch(batch.header, batch.payload, kDiskBytes);
}

void expect_corrupt(const Result<Batch>& batch) {
  ASSERT_FALSE(batch);
  EXPECT_EQ(batch.error().kind, ErrorKind::kCorrupt);
}

void expect_same(const BatchHeader& a, const BatchHeader& b) {
  EXPECT_EQ(encode_batch_header(a), encode_batch_header(b));
}

// A header with a right checksum over whatever it says.
void seal(std::vector<std::byte>& header) {
  Encoder encoder;
  encoder.put(crc32c(ConstByteSpan(header).first(kBatchHeaderBytes - 4)));
  std::copy(encoder.bytes().begin(), encoder.bytes().end(), header.end() - 4);
}

TEST(Batch, RoundTripWithZeroAndShortLastExtents) {
  for (const Codec codec : {Codec::kNone, Codec::kZstd}) {
    const std::vector<Extent> extents{{0, kBlockBytes, ExtentKind::kZero},
                                      {kBlockBytes, kBlockBytes + 16, ExtentKind::kData}};
    const auto data = text(kBlockBytes + 16);
    const EncodedBatch sent = encode_batch(identity(), extents, data, {codec, 3});
    EXPECT_EQ(sent.header.codec, codec);
    EXPECT_EQ(sent.header.data_bytes, data.size());
    EXPECT_EQ(sent.header.stored_bytes, sent.payload.size());
    const auto batch = decode_batch(sent.header, sent.payload, kDiskBytes);
    ASSERT_TRUE(batch) << batch.error().message();
    EXPECT_EQ(batch->extents, extents);
    EXPECT_EQ(batch->data, data);
    expect_same(batch->header, sent.header);
  }
}

TEST(Batch, OnlyZeroExtentsCarryNoData) {
  const std::vector<Extent> extents{{0, kDiskBytes, ExtentKind::kZero}};
  const EncodedBatch sent = encode_batch(identity(), extents, {}, {});
  EXPECT_EQ(sent.payload.size(), 24U);
  const auto batch = decode_batch(sent.header, sent.payload, kDiskBytes);
  ASSERT_TRUE(batch);
  EXPECT_EQ(batch->extents, extents);
  EXPECT_TRUE(batch->data.empty());
}

TEST(Batch, WhatDoesNotShrinkIsStoredAsItIs) {
  // Small enough to be tried whole, and large enough to be sampled.
  for (const uint64_t bytes : {kBlockBytes, uint64_t{64} * kBlockBytes}) {
    const auto data = noise(bytes);
    const EncodedBatch sent = encode_batch(identity(), {{0, bytes}}, data, {Codec::kZstd, 1});
    EXPECT_EQ(sent.header.codec, Codec::kNone);
    EXPECT_EQ(sent.payload.size(), 24 + bytes);
    const auto batch = decode_batch(sent.header, sent.payload, bytes);
    ASSERT_TRUE(batch);
    EXPECT_EQ(batch->data, data);
  }
}

TEST(Batch, WhatShrinksIsCompressed) {
  const auto data = text(64 * kBlockBytes);
  const EncodedBatch sent = encode_batch(identity(), {{0, data.size()}}, data, {Codec::kZstd, 1});
  EXPECT_EQ(sent.header.codec, Codec::kZstd);
  EXPECT_LT(sent.payload.size(), data.size() / 10);
  EXPECT_EQ(decode_batch(sent.header, sent.payload, data.size())->data, data);
}

// Each into the memory of the one before, which tells whether to take samples first.
TEST(Batch, OneThatShrinksMayFollowOneThatDoesNotAndTheReverse) {
  constexpr uint64_t kBytes = 64 * kBlockBytes;
  EncodedBatch sent;
  for (const bool shrinks : {true, false, false, true, true, false}) {
    const auto data = shrinks ? text(kBytes) : noise(kBytes);
    encode_batch_into(sent, identity(), {{0, kBytes}}, data, {Codec::kZstd, 1});
    EXPECT_EQ(sent.header.codec, shrinks ? Codec::kZstd : Codec::kNone);
    const auto batch = decode_batch(sent.header, sent.payload, kBytes);
    ASSERT_TRUE(batch);
    EXPECT_EQ(batch->data, data);
  }
}

// What saves less than an eighth is not worth a processor's time.
TEST(Batch, WhatHardlyShrinksIsStoredAsItIs) {
  constexpr uint64_t kBytes = 64 * kBlockBytes;
  for (const uint64_t share : {10U, 5U}) {
    auto data = noise(kBytes);
    for (uint64_t block = 0; block < 64; ++block) {
      std::ranges::copy(text(kBlockBytes / share),
                        data.begin() + static_cast<ptrdiff_t>(block * kBlockBytes));
    }
    const EncodedBatch sent = encode_batch(identity(), {{0, kBytes}}, data, {Codec::kZstd, 1});
    EXPECT_EQ(sent.header.codec, share == 5 ? Codec::kZstd : Codec::kNone);
  }
}

// The samples miss the little text in it; without them it is compressed, but once only.
TEST(Batch, WhatShrankByAHairIsSampledAgain) {
  constexpr uint64_t kBytes = 64 * kBlockBytes;
  auto data = noise(kBytes);
  std::ranges::copy(text(kBlockBytes), data.begin() + 10 * kBlockBytes);
  EncodedBatch sent;
  encode_batch_into(sent, identity(), {{0, kBytes}}, text(kBytes), {Codec::kZstd, 1});
  for (const Codec expected : {Codec::kZstd, Codec::kNone}) {
    encode_batch_into(sent, identity(), {{0, kBytes}}, data, {Codec::kZstd, 1});
    EXPECT_EQ(sent.header.codec, expected);
  }
}

TEST(Batch, HeaderRoundTrip) {
  const EncodedBatch batch = example();
  const auto bytes = encode_batch_header(batch.header);
  ASSERT_EQ(bytes.size(), kBatchHeaderBytes);
  const auto header = decode_batch_header(bytes);
  ASSERT_TRUE(header) << header.error().message();
  expect_same(*header, batch.header);
  EXPECT_EQ(header->volume, batch.header.volume);
  EXPECT_EQ(header->timeline, batch.header.timeline);
  EXPECT_EQ(header->epoch, batch.header.epoch);
  EXPECT_EQ(header->sequence, batch.header.sequence);
  EXPECT_EQ(header->incarnation, batch.header.incarnation);
  EXPECT_EQ(header->extent_count, 2U);
  EXPECT_EQ(header->data_bytes, 16U);
}

TEST(Batch, EveryFlippedBitOfAHeaderIsRefused) {
  auto bytes = encode_batch_header(example().header);
  for (size_t bit = 0; bit < bytes.size() * 8; ++bit) {
    bytes[bit / 8] ^= std::byte{1} << (bit % 8);
    EXPECT_FALSE(decode_batch_header(bytes)) << bit;
    bytes[bit / 8] ^= std::byte{1} << (bit % 8);
  }
  EXPECT_TRUE(decode_batch_header(bytes));
}

TEST(Batch, EveryFlippedBitOfAPayloadIsRefused) {
  for (const Codec codec : {Codec::kNone, Codec::kZstd}) {
    EncodedBatch batch =
        encode_batch(identity(), {{0, kBlockBytes}}, text(kBlockBytes), {codec, 1});
    const size_t step = codec == Codec::kNone ? 7 : 1;
    for (size_t bit = 0; bit < batch.payload.size() * 8; bit += step) {
      batch.payload[bit / 8] ^= std::byte{1} << (bit % 8);
      EXPECT_FALSE(decode_batch(batch.header, batch.payload, kDiskBytes)) << bit;
      batch.payload[bit / 8] ^= std::byte{1} << (bit % 8);
    }
    EXPECT_TRUE(decode_batch(batch.header, batch.payload, kDiskBytes));
  }
}

TEST(Batch, EveryOtherLengthIsRefused) {
  const EncodedBatch batch = example();
  const auto header = encode_batch_header(batch.header);
  for (size_t length = 0; length < header.size(); ++length) {
    EXPECT_FALSE(decode_batch_header(ConstByteSpan(header).first(length)));
  }
  for (size_t length = 0; length < batch.payload.size(); ++length) {
    expect_corrupt(
        decode_batch(batch.header, ConstByteSpan(batch.payload).first(length), kDiskBytes));
  }
  auto longer = batch.payload;
  longer.emplace_back();
  expect_corrupt(decode_batch(batch.header, longer, kDiskBytes));
}

// Sizes that nobody has checked yet: refused by the header alone, with no payload to allocate for.
TEST(Batch, HostileSizesAreRefusedBeforeAnythingIsAllocated) {
  struct Sizes {
    uint32_t extent_count;
    uint64_t data_bytes;
    uint64_t stored_bytes;
  };
  for (const Sizes& sizes :
       {Sizes{0, 0, 0}, Sizes{kBatchExtentsMax + 1, 16, 24 * (kBatchExtentsMax + 1)},
        Sizes{UINT32_MAX, 16, 24 * uint64_t{UINT32_MAX}},
        Sizes{1, kBatchBytesMax + 1, kBatchBytesMax + 25}, Sizes{1, UINT64_MAX, UINT64_MAX},
        Sizes{1, UINT64_MAX - 23, 24}, Sizes{2, 16, 47}, Sizes{2, 16, 48 + 17},
        Sizes{2, 0, UINT64_MAX}}) {
    BatchHeader header = example().header;
    header.extent_count = sizes.extent_count;
    header.data_bytes = sizes.data_bytes;
    header.stored_bytes = sizes.stored_bytes;
    const auto decoded = decode_batch_header(encode_batch_header(header));
    ASSERT_FALSE(decoded);
    EXPECT_EQ(decoded.error().kind, ErrorKind::kCorrupt);
    expect_corrupt(decode_batch(header, {}, kDiskBytes));
  }
}

TEST(Batch, ReservedBytesMustBeZeroAndTheCodecKnown) {
  for (const size_t at : std::initializer_list<size_t>{65, 66, 67, 104, 115, 123}) {
    auto bytes = encode_batch_header(example().header);
    bytes[at] = std::byte{1};
    seal(bytes);
    EXPECT_FALSE(decode_batch_header(bytes)) << at;
  }
  auto bytes = encode_batch_header(example().header);
  bytes[64] = std::byte{2};
  seal(bytes);
  EXPECT_FALSE(decode_batch_header(bytes));
}

TEST(Batch, ANewerVersionOrAFeatureIsSaidToBeNewer) {
  for (const size_t at : std::initializer_list<size_t>{4, 6}) {
    auto bytes = encode_batch_header(example().header);
    bytes[at] = std::byte{2};
    seal(bytes);
    const auto header = decode_batch_header(bytes);
    ASSERT_FALSE(header);
    EXPECT_EQ(header.error().kind, ErrorKind::kInvalid);
  }
}

TEST(Batch, ExtentsMustLieOnTheDiskAtBlocksAndAscend) {
  struct Table {
    Extent first;
    Extent second;
  };
  const Extent last{2 * kBlockBytes, 16};
  for (const Table& table :
       {Table{{kBlockBytes, 16, ExtentKind::kZero}, last},
        Table{{512, kBlockBytes, ExtentKind::kZero}, last}, Table{{0, 0, ExtentKind::kZero}, last},
        Table{{0, 3 * kBlockBytes, ExtentKind::kZero}, last},
        Table{{2 * kBlockBytes, 16, ExtentKind::kZero}, last},
        Table{{kBlockBytes, UINT64_MAX - 4095, ExtentKind::kZero}, last},
        Table{{0, UINT64_MAX, ExtentKind::kZero}, last},
        Table{{UINT64_MAX - 4095, 4096, ExtentKind::kZero}, last},
        Table{{0, 4096, ExtentKind::kZero}, {3 * kBlockBytes, 16}}}) {
    const EncodedBatch batch =
        encode_batch(identity(), {table.first, table.second}, text(16), {Codec::kNone, 1});
    expect_corrupt(decode_batch(batch.header, batch.payload, kDiskBytes));
  }
}

TEST(Batch, ForgedTablesAreRefused) {
  expect_corrupt(decode_forged(example(), [](EncodedBatch& b) { b.payload[16] = std::byte{2}; }));
  expect_corrupt(decode_forged(example(), [](EncodedBatch& b) { b.payload[17] = std::byte{1}; }));
  // The zero extent as data: more data than declared.
  expect_corrupt(decode_forged(example(), [](EncodedBatch& b) { b.payload[16] = std::byte{0}; }));
  // Less stored than declared.
  expect_corrupt(decode_forged(example(), [](EncodedBatch& b) {
    b.payload.pop_back();
    b.header.stored_bytes -= 1;
  }));
  EXPECT_TRUE(decode_forged(example(), [](EncodedBatch&) {}));
}

// A frame in the place of the data, with everything else right.
Result<Batch> decode_frame(const std::vector<std::byte>& frame, uint64_t declared_bytes) {
  EncodedBatch batch =
      encode_batch(identity(), {{0, declared_bytes}}, text(declared_bytes), {Codec::kNone, 1});
  batch.payload.resize(24);
  batch.payload.insert(batch.payload.end(), frame.begin(), frame.end());
  batch.header.codec = Codec::kZstd;
  batch.header.stored_bytes = batch.payload.size();
  batch.header.payload_digest = digest_of(batch.payload);
  return decode_batch(batch.header, batch.payload, declared_bytes);
}

std::vector<std::byte> frame_of(const std::vector<std::byte>& data, bool says_size) {
  ZSTD_CCtx* const context = ZSTD_createCCtx();
  ZSTD_CCtx_setParameter(context, ZSTD_c_contentSizeFlag, says_size ? 1 : 0);
  std::vector<std::byte> frame(ZSTD_compressBound(data.size()));
  frame.resize(ZSTD_compress2(context, frame.data(), frame.size(), data.data(), data.size()));
  ZSTD_freeCCtx(context);
  return frame;
}

TEST(Batch, OnlyOneWholeFrameOfTheDeclaredSizePasses) {
  const auto frame = frame_of(text(kBlockBytes), true);
  EXPECT_TRUE(decode_frame(frame, kBlockBytes));
  expect_corrupt(decode_frame(frame, 2 * kBlockBytes));
  expect_corrupt(decode_frame(frame_of(text(2 * kBlockBytes), true), kBlockBytes));
  expect_corrupt(decode_frame(frame_of(text(kBlockBytes), false), kBlockBytes));
  auto longer = frame;
  longer.emplace_back();
  expect_corrupt(decode_frame(longer, kBlockBytes));
  auto twice = frame_of(text(kBlockBytes), true);
  twice.insert(twice.end(), twice.begin(), twice.end());
  expect_corrupt(decode_frame(twice, 2 * kBlockBytes));
  expect_corrupt(decode_frame({}, kBlockBytes));
}

TEST(Batch, TheLimitsThemselvesPass) {
  BatchHeader header = example().header;
  header.extent_count = kBatchExtentsMax;
  header.data_bytes = kBatchBytesMax;
  header.stored_bytes = 24 * kBatchExtentsMax + kBatchBytesMax;
  EXPECT_TRUE(decode_batch_header(encode_batch_header(header)));
}

TEST(Batch, GoldenPlainBatchIsWrittenAndRead) {
  const EncodedBatch batch = example();
  Encoder encoder;
  encoder.put_bytes(encode_batch_header(batch.header));
  encoder.put_bytes(batch.payload);
  expect_golden("batch/plain", encoder.bytes());
  expect_documented("batch-format.md", "batch/plain");
}

// What zstd makes of data changes with its version; what is in the file must be read for ever.
TEST(Batch, GoldenCompressedBatchIsRead) {
  if (std::getenv("CKPT_UPDATE_GOLDEN") != nullptr) {
    const EncodedBatch batch =
        encode_batch(identity(), {{0, kBlockBytes}, {2 * kBlockBytes, 16, ExtentKind::kZero}},
                     text(kBlockBytes), {Codec::kZstd, 1});
    Encoder encoder;
    encoder.put_bytes(encode_batch_header(batch.header));
    encoder.put_bytes(batch.payload);
    expect_golden("batch/zstd", encoder.bytes());
  }
  const auto golden = read_golden("batch/zstd");
  ASSERT_GT(golden.size(), kBatchHeaderBytes);
  const auto header = decode_batch_header(ConstByteSpan(golden).first(kBatchHeaderBytes));
  ASSERT_TRUE(header);
  EXPECT_EQ(header->codec, Codec::kZstd);
  const auto batch =
      decode_batch(*header, ConstByteSpan(golden).subspan(kBatchHeaderBytes), kDiskBytes);
  ASSERT_TRUE(batch) << batch.error().message();
  EXPECT_EQ(batch->data, text(kBlockBytes));
  EXPECT_EQ(batch->extents.back(), (Extent{2 * kBlockBytes, 16, ExtentKind::kZero}));
}

TEST(Chain, DependsOnEveryBitOfTheHeaderAndOfTheLinkBefore) {
  const BatchHeader header = example().header;
  const Digest link = chain({}, header);
  for (size_t bit = 0; bit < 128; ++bit) {
    Digest previous;
    previous.bytes[bit / 8] = static_cast<uint8_t>(1U << (bit % 8));
    EXPECT_NE(chain(previous, header), link);
  }
  BatchHeader other = header;
  other.sequence += 1;
  EXPECT_NE(chain({}, other), link);
  other = header;
  other.payload_digest.bytes[15] ^= 1;
  EXPECT_NE(chain({}, other), link);
}

TEST(Chain, DependsOnTheOrder) {
  const BatchHeader a = example().header;
  BatchHeader b = a;
  b.sequence += 1;
  EXPECT_NE(chain(chain({}, a), b), chain(chain({}, b), a));
}

TEST(CheckpointDigest, DependsOnAllThatItCovers) {
  const std::vector<CoveredEpoch> covered{{{3}, {{1}}}, {{4}, {{2}}}};
  const Digest digest = checkpoint_digest({}, uuid_of(1), {4}, covered);
  EXPECT_EQ(checkpoint_digest({}, uuid_of(1), {4}, covered), digest);
  EXPECT_NE(checkpoint_digest({{1}}, uuid_of(1), {4}, covered), digest);
  EXPECT_NE(checkpoint_digest({}, uuid_of(2), {4}, covered), digest);
  EXPECT_NE(checkpoint_digest({}, uuid_of(1), {5}, covered), digest);
  EXPECT_NE(checkpoint_digest({}, uuid_of(1), {4}, {covered[0]}), digest);
  EXPECT_NE(checkpoint_digest({}, uuid_of(1), {4}, {covered[1], covered[0]}), digest);
  EXPECT_NE(checkpoint_digest({}, uuid_of(1), {4}, {{{2}, {{1}}}, {{4}, {{2}}}}), digest);
  EXPECT_NE(checkpoint_digest({}, uuid_of(1), {4}, {{{3}, {{9}}}, {{4}, {{2}}}}), digest);
  EXPECT_NE(checkpoint_digest({}, uuid_of(1), {4}, {}), digest);
}

}  // namespace
}  // namespace ckpt::test
