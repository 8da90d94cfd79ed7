// SPDX-License-Identifier: Apache-2.0
#include "common/batch.h"

#include "common/checksum.h"
#include "common/codec.h"

namespace ckpt {
namespace {

constexpr uint32_t kBatchMagic = 0x42504b43;  // "CKPB" in the order of the bytes
constexpr uint16_t kBatchVersion = 1;
constexpr size_t kExtentBytes = 24;
constexpr size_t kBatchReservedBytes = 20;

// The samples cost a tenth of it: none as long as the data keeps shrinking.
bool shrank(const BatchHeader& last) {
  return last.codec == Codec::kZstd && is_worth(last.stored_bytes, last.data_bytes);
}

void append(std::vector<std::byte>& out, ConstByteSpan bytes) {
  out.insert(out.end(), bytes.begin(), bytes.end());
}

std::vector<std::byte> encode_table(const std::vector<Extent>& extents) {
  Encoder encoder;
  for (const Extent& extent : extents) {
    encoder.put(extent.offset);
    encoder.put(extent.length);
    encoder.put(static_cast<uint8_t>(extent.kind));
    encoder.put_zeroes(7);
  }
  return encoder.take();
}

bool valid_extent(const Extent& extent, uint64_t from, uint64_t size_bytes) {
  const bool inside = extent.offset >= from && extent.offset < size_bytes && extent.length > 0 &&
                      extent.length <= size_bytes - extent.offset;
  if (!inside || extent.offset % kBlockBytes != 0) {
    return false;
  }
  const uint64_t end = extent.offset + extent.length;
  return end % kBlockBytes == 0 || end == size_bytes;
}

Result<std::vector<Extent>> decode_table(Decoder& decoder, uint32_t count, uint64_t size_bytes) {
  std::vector<Extent> extents;
  extents.reserve(count);
  uint64_t from = 0;
  for (uint32_t i = 0; i < count; ++i) {
    Extent extent;
    extent.offset = decoder.get<uint64_t>();
    extent.length = decoder.get<uint64_t>();
    const auto kind = decoder.get<uint8_t>();
    decoder.get_zeroes(7);
    extent.kind = static_cast<ExtentKind>(kind);
    if (!decoder.ok() || kind > 1 || !valid_extent(extent, from, size_bytes)) {
      return fail(ErrorKind::kCorrupt, "batch: extent " + std::to_string(i) + " is not valid");
    }
    from = extent.offset + extent.length;
    extents.push_back(extent);
  }
  return extents;
}

uint64_t data_bytes_of(const std::vector<Extent>& extents) {
  uint64_t total = 0;
  for (const Extent& extent : extents) {
    total += extent.kind == ExtentKind::kData ? extent.length : 0;
  }
  return total;
}

Result<> in_batch(Result<> outcome) {
  return outcome ? outcome : Result<>(within("batch", outcome.error()));
}

// Everything after the extent table.
ConstByteSpan stored_data(const BatchHeader& header, ConstByteSpan payload) {
  return payload.subspan(uint64_t{header.extent_count} * kExtentBytes);
}

Result<> check_limits(const BatchHeader& header) {
  const uint64_t table_bytes = uint64_t{header.extent_count} * kExtentBytes;
  const bool sane = header.extent_count > 0 && header.extent_count <= kBatchExtentsMax &&
                    header.data_bytes <= kBatchBytesMax && header.stored_bytes >= table_bytes &&
                    header.stored_bytes - table_bytes <= header.data_bytes;
  if (!sane) {
    return fail(ErrorKind::kCorrupt, "batch: sizes are beyond the limits");
  }
  return {};
}

}  // namespace

EncodedBatch encode_batch(const BatchHeader& identity, const std::vector<Extent>& extents,
                          ConstByteSpan data, const Compression& compression) {
  EncodedBatch batch;
  encode_batch_into(batch, identity, extents, data, compression);
  return batch;
}

void encode_batch_into(EncodedBatch& batch, const BatchHeader& identity,
                       const std::vector<Extent>& extents, ConstByteSpan data,
                       const Compression& compression) {
  std::optional<ConstByteSpan> packed;
  if (compression.codec == Codec::kZstd && !data.empty() &&
      (shrank(batch.header) || shrinks(data, compression.level))) {
    packed = compress(data, compression.level);
  }
  batch.payload.clear();
  append(batch.payload, encode_table(extents));
  append(batch.payload, packed.value_or(data));
  batch.header = identity;
  batch.header.codec = packed ? Codec::kZstd : Codec::kNone;
  batch.header.extent_count = static_cast<uint32_t>(extents.size());
  batch.header.data_bytes = data.size();
  batch.header.stored_bytes = batch.payload.size();
  batch.header.payload_digest = digest_of(batch.payload);
}

Result<std::vector<Extent>> decode_extents(const BatchHeader& header, ConstByteSpan payload,
                                           uint64_t size_bytes) {
  CKPT_TRY(check_limits(header));
  if (payload.size() != header.stored_bytes || digest_of(payload) != header.payload_digest) {
    return fail(ErrorKind::kCorrupt, "batch: the payload's digest is wrong");
  }
  Decoder decoder(payload);
  CKPT_ASSIGN(auto extents, decode_table(decoder, header.extent_count, size_bytes));
  if (data_bytes_of(extents) != header.data_bytes) {
    return fail(ErrorKind::kCorrupt, "batch: the extents do not add up to the declared size");
  }
  const ConstByteSpan stored = stored_data(header, payload);
  if (header.codec == Codec::kZstd) {
    CKPT_TRY(in_batch(check_frame(stored, header.data_bytes)));
  } else if (stored.size() != header.data_bytes) {
    return fail(ErrorKind::kCorrupt, "batch: the data is not of the declared size");
  }
  return extents;
}

Result<Batch> decode_batch(const BatchHeader& header, ConstByteSpan payload, uint64_t size_bytes) {
  Batch batch;
  CKPT_TRY(decode_batch_into(batch, header, payload, size_bytes));
  return batch;
}

Result<> decode_batch_into(Batch& batch, const BatchHeader& header, ConstByteSpan payload,
                           uint64_t size_bytes) {
  batch.header = header;
  CKPT_ASSIGN(batch.extents, decode_extents(header, payload, size_bytes));
  const ConstByteSpan stored = stored_data(header, payload);
  if (header.codec == Codec::kZstd) {
    batch.data.resize(header.data_bytes);
    return in_batch(decompress(stored, batch.data));
  }
  batch.data.assign(stored.begin(), stored.end());
  return {};
}

std::vector<std::byte> encode_batch_header(const BatchHeader& header) {
  Encoder encoder;
  encoder.put(kBatchMagic);
  encoder.put(kBatchVersion);
  encoder.put(uint16_t{0});
  encoder.put_array(header.volume.bytes);
  encoder.put_array(header.timeline.bytes);
  encoder.put(header.epoch.value);
  encoder.put(header.sequence);
  encoder.put(header.incarnation);
  encoder.put(static_cast<uint8_t>(header.codec));
  encoder.put_zeroes(3);
  encoder.put(header.extent_count);
  encoder.put(header.data_bytes);
  encoder.put(header.stored_bytes);
  encoder.put_array(header.payload_digest.bytes);
  encoder.put_zeroes(kBatchReservedBytes);
  encoder.put(crc32c(encoder.bytes()));
  return encoder.take();
}

Result<BatchHeader> decode_batch_header(ConstByteSpan bytes) {
  if (bytes.size() != kBatchHeaderBytes) {
    return fail(ErrorKind::kCorrupt, "batch header: not 128 bytes");
  }
  Decoder decoder(bytes);
  BatchHeader header;
  const bool ours = decoder.get<uint32_t>() == kBatchMagic;
  const auto version = decoder.get<uint16_t>();
  const auto features = decoder.get<uint16_t>();
  const size_t crc_at = kBatchHeaderBytes - sizeof(uint32_t);
  if (!ours || Decoder(bytes.subspan(crc_at)).get<uint32_t>() != crc32c(bytes.first(crc_at))) {
    return fail(ErrorKind::kCorrupt, "batch header: magic or checksum is wrong");
  }
  if (version != kBatchVersion || features != 0) {
    return fail(ErrorKind::kInvalid, "batch header: written by a newer version of ckpt");
  }
  header.volume.bytes = decoder.get_array<16>();
  header.timeline.bytes = decoder.get_array<16>();
  header.epoch.value = decoder.get<uint64_t>();
  header.sequence = decoder.get<uint64_t>();
  header.incarnation = decoder.get<uint64_t>();
  const auto codec = decoder.get<uint8_t>();
  header.codec = static_cast<Codec>(codec);
  decoder.get_zeroes(3);
  header.extent_count = decoder.get<uint32_t>();
  header.data_bytes = decoder.get<uint64_t>();
  header.stored_bytes = decoder.get<uint64_t>();
  header.payload_digest.bytes = decoder.get_array<16>();
  decoder.get_zeroes(kBatchReservedBytes);
  if (!decoder.ok() || codec > 1) {
    return fail(ErrorKind::kCorrupt, "batch header: a field is not valid");
  }
  CKPT_TRY(check_limits(header));
  return header;
}

Digest chain(const Digest& previous, const BatchHeader& header) {
  Encoder encoder;
  encoder.put_array(previous.bytes);
  encoder.put_bytes(encode_batch_header(header));
  return digest_of(encoder.bytes());
}

Digest checkpoint_digest(const Digest& parent, const Uuid& timeline, Epoch number,
                         const std::vector<CoveredEpoch>& covered) {
  Encoder encoder;
  encoder.put_array(parent.bytes);
  encoder.put_array(timeline.bytes);
  encoder.put(number.value);
  for (const CoveredEpoch& epoch : covered) {
    encoder.put(epoch.epoch.value);
    encoder.put_array(epoch.chain.bytes);
  }
  return digest_of(encoder.bytes());
}

}  // namespace ckpt
