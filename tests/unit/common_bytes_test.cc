// SPDX-License-Identifier: Apache-2.0
// Encoder, decoder and checksums.
#include <gtest/gtest.h>

#include "common/bytes.h"
#include "common/checksum.h"

namespace ckpt {
namespace {

std::vector<std::byte> bytes_from(std::initializer_list<unsigned> values) {
  std::vector<std::byte> bytes;
  for (const unsigned value : values) {
    bytes.push_back(static_cast<std::byte>(value));
  }
  return bytes;
}

TEST(Encoder, IsLittleEndian) {
  Encoder encoder;
  encoder.put(uint8_t{0x01});
  encoder.put(uint16_t{0x0302});
  encoder.put(uint32_t{0x07060504});
  encoder.put(uint64_t{0x0f0e0d0c0b0a0908});
  encoder.put_zeroes(2);
  encoder.put_string("ab");
  EXPECT_EQ(encoder.size(), 21U);
  EXPECT_EQ(encoder.take(),
            bytes_from({1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 0, 0, 2, 0, 'a', 'b'}));
}

TEST(Decoder, GivesBackWhatWasPut) {
  Encoder encoder;
  const std::array<uint8_t, 4> four{9, 8, 7, 6};
  encoder.put(uint8_t{200});
  encoder.put(uint16_t{60000});
  encoder.put(uint32_t{4000000000});
  encoder.put(UINT64_MAX - 1);
  encoder.put_array(four);
  encoder.put_string("name");
  encoder.put_zeroes(3);
  Decoder decoder(encoder.bytes());
  EXPECT_EQ(decoder.get<uint8_t>(), 200);
  EXPECT_EQ(decoder.get<uint16_t>(), 60000);
  EXPECT_EQ(decoder.get<uint32_t>(), 4000000000);
  EXPECT_EQ(decoder.get<uint64_t>(), UINT64_MAX - 1);
  EXPECT_EQ(decoder.get_array<4>(), four);
  EXPECT_EQ(decoder.get_string(), "name");
  decoder.get_zeroes(3);
  EXPECT_TRUE(decoder.ok());
  EXPECT_EQ(decoder.remaining(), 0U);
}

TEST(Decoder, PastTheEndEverythingIsZeroForGood) {
  const auto bytes = bytes_from({1, 2, 3});
  Decoder decoder(bytes);
  EXPECT_EQ(decoder.get<uint32_t>(), 0U);
  EXPECT_FALSE(decoder.ok());
  // The three bytes are there, and are not given any more.
  EXPECT_EQ(decoder.get<uint8_t>(), 0U);
  EXPECT_TRUE(decoder.get_bytes(1).empty());
  EXPECT_EQ((decoder.get_array<2>()), (std::array<uint8_t, 2>{}));
  EXPECT_EQ(decoder.get_string(), "");
  EXPECT_FALSE(decoder.ok());
}

TEST(Decoder, AStringLongerThanTheRestIsRefused) {
  const auto bytes = bytes_from({255, 255, 'a'});
  Decoder decoder(bytes);
  EXPECT_EQ(decoder.get_string(), "");
  EXPECT_FALSE(decoder.ok());
}

TEST(Decoder, ACountThatWrapsIsRefused) {
  const auto bytes = bytes_from({1, 2, 3});
  Decoder decoder(bytes);
  EXPECT_TRUE(decoder.get_bytes(SIZE_MAX).empty());
  EXPECT_FALSE(decoder.ok());
}

TEST(Decoder, ReservedBytesMustBeZeroAndThere) {
  for (const auto& bytes : {bytes_from({0, 0, 1}), bytes_from({1, 0, 0}), bytes_from({0, 0})}) {
    Decoder decoder(bytes);
    decoder.get_zeroes(3);
    EXPECT_FALSE(decoder.ok());
  }
  const auto good = bytes_from({0, 0, 0});
  Decoder decoder(good);
  decoder.get_zeroes(3);
  EXPECT_TRUE(decoder.ok());
}

TEST(Checksum, Crc32cKnownAnswers) {
  EXPECT_EQ(crc32c(as_bytes_of("123456789")), 0xe3069283U);
  EXPECT_EQ(crc32c({}), 0U);
  // RFC 3720, B.4: 32 bytes of zeroes, and of ones.
  EXPECT_EQ(crc32c(std::vector<std::byte>(32)), 0x8a9136aaU);
  EXPECT_EQ(crc32c(std::vector<std::byte>(32, std::byte{0xff})), 0x62a8ab43U);
}

TEST(Checksum, DigestKnownAnswer) {
  // xxhsum -H2 of no input.
  EXPECT_EQ(digest_of({}).to_string(), "99aa06d3014798d86001c324468d497f");
}

TEST(Checksum, AllZeroIsFoundAtEveryLengthAndPlace) {
  for (size_t length = 0; length <= 70; ++length) {
    std::vector<std::byte> bytes(length);
    EXPECT_TRUE(is_zero(bytes)) << length;
    for (size_t at = 0; at < length; ++at) {
      bytes[at] = std::byte{1};
      EXPECT_FALSE(is_zero(bytes)) << length << " at " << at;
      bytes[at] = std::byte{0};
    }
  }
}

}  // namespace
}  // namespace ckpt
