// SPDX-License-Identifier: Apache-2.0
#include "backupd/store/journal_format.h"

#include <algorithm>

#include "common/checkpoint_codec.h"
#include "common/checksum.h"

namespace ckpt {
namespace {

constexpr std::string_view kHeaderMagic = "CKPTJRNL";
constexpr uint32_t kJournalFrameMagic = 0x524a4b43;  // "CKJR" in the order of the bytes
constexpr uint16_t kJournalVersion = 1;
constexpr size_t kNameDigits = 20;  // of 2^64 - 1
constexpr size_t kDigestBytes = 16;
constexpr size_t kCrcBytes = sizeof(uint32_t);
constexpr size_t kFrameReservedBytes = 12;
constexpr size_t kHeaderReservedBytes = 44;
constexpr size_t kConfirmReservedBytes = 40;
constexpr size_t kCoveredBytes = 56;
constexpr uint64_t kJournalBatchBytesMax =
    kBatchHeaderBytes + kBatchBytesMax + kBatchExtentsMax * 24;  // 24: an extent in the table

void put_crc(Encoder& encoder) { encoder.put(crc32c(encoder.bytes())); }

bool crc_matches(ConstByteSpan bytes) {
  const size_t at = bytes.size() - kCrcBytes;
  return Decoder(bytes.subspan(at)).get<uint32_t>() == crc32c(bytes.first(at));
}

bool valid_length(RecordType type, uint64_t body_bytes) {
  return type == RecordType::kBatch
             ? body_bytes > kBatchHeaderBytes && body_bytes <= kJournalBatchBytesMax
             : body_bytes > 0 && body_bytes <= kConfirmBytesMax;
}

// What of a frame its link covers: all but link and checksum.
void put_frame_fields(Encoder& encoder, const Frame& frame) {
  encoder.put(kJournalFrameMagic);
  encoder.put(static_cast<uint16_t>(frame.type));
  encoder.put(uint16_t{0});
  encoder.put(frame.body_bytes);
  encoder.put(frame.epoch.value);
  encoder.put(frame.offset);
}

bool valid_confirm(const ConfirmRecord& record) {
  const auto by_epoch = [](const CoveredSegment& a, const CoveredSegment& b) {
    return a.epoch >= b.epoch;
  };
  const auto& covered = record.covered;
  const bool ascending =
      std::adjacent_find(covered.begin(), covered.end(), by_epoch) == covered.end();
  // A copy's parent may never have been here, and be later than what was sent first.
  const bool inside = covered.empty() || (covered.front().epoch > record.previous.segment &&
                                          covered.back().epoch <= record.checkpoint.id.number);
  return ascending && inside && record.previous.segment < record.checkpoint.id.number;
}

Result<ConfirmRecord> decode_confirm_fields(ConstByteSpan bytes) {
  Decoder decoder(bytes);
  ConfirmRecord record;
  CKPT_ASSIGN(record.checkpoint, decode_checkpoint(decoder));
  record.previous = decode_position(decoder);
  decoder.get_zeroes(kConfirmReservedBytes);
  const auto count = decoder.get<uint32_t>();
  if (!decoder.ok() || count > kCoveredEpochsMax || decoder.remaining() != count * kCoveredBytes) {
    return fail(ErrorKind::kCorrupt, "confirm record: not of the declared length");
  }
  record.covered.resize(count);
  for (CoveredSegment& segment : record.covered) {
    segment.epoch.value = decoder.get<uint64_t>();
    segment.end_offset = decoder.get<uint64_t>();
    segment.chain.bytes = decoder.get_array<16>();
    segment.link.bytes = decoder.get_array<16>();
    decoder.get_zeroes(8);
  }
  if (!decoder.ok() || !valid_confirm(record)) {
    return fail(ErrorKind::kCorrupt, "confirm record: a field is not valid");
  }
  return record;
}

}  // namespace

std::string journal_name(Epoch epoch) {
  const std::string digits = std::to_string(epoch.value);
  return std::string(kNameDigits - digits.size(), '0') + digits;
}

Epoch parse_journal_name(const std::string& name) {
  uint64_t value = 0;
  for (const char digit : name) {
    if (digit < '0' || digit > '9') {
      return {};
    }
    value = value * 10 + static_cast<uint64_t>(digit - '0');
  }
  // Also keeps out what overflowed above.
  return journal_name({value}) == name ? Epoch{value} : Epoch{};
}

std::vector<std::byte> encode_journal_header(const JournalHeader& header) {
  Encoder encoder;
  encoder.put_bytes(as_bytes_of(kHeaderMagic));
  encoder.put(kJournalVersion);
  encoder.put_zeroes(6);
  encoder.put(uint64_t{0});  // features that a reader must know
  encoder.put(uint64_t{0});  // features that it may ignore
  encoder.put_array(header.volume.bytes);
  encoder.put_array(header.timeline.bytes);
  encoder.put(header.epoch.value);
  encoder.put(header.incarnation);
  encoder.put_zeroes(kHeaderReservedBytes);
  put_crc(encoder);
  CKPT_CHECK(encoder.size() == kJournalHeaderBytes);
  return encoder.take();
}

Result<JournalHeader> decode_journal_header(ConstByteSpan bytes) {
  if (bytes.size() != kJournalHeaderBytes || !crc_matches(bytes) ||
      !std::ranges::equal(bytes.first(kHeaderMagic.size()), as_bytes_of(kHeaderMagic))) {
    return fail(ErrorKind::kCorrupt, "journal header: magic or checksum is wrong");
  }
  Decoder decoder(bytes.subspan(kHeaderMagic.size()));
  const auto version = decoder.get<uint16_t>();
  decoder.get_zeroes(6);
  const auto required = decoder.get<uint64_t>();
  decoder.get<uint64_t>();
  if (version != kJournalVersion || required != 0) {
    return fail(ErrorKind::kInvalid,
                "journal header: written by a newer version of ckpt; use one as new");
  }
  JournalHeader header;
  header.volume.bytes = decoder.get_array<16>();
  header.timeline.bytes = decoder.get_array<16>();
  header.epoch.value = decoder.get<uint64_t>();
  header.incarnation = decoder.get<uint64_t>();
  decoder.get_zeroes(decoder.remaining() - kCrcBytes);
  if (!decoder.ok() || header.epoch.value == 0) {
    return fail(ErrorKind::kCorrupt, "journal header: a field is not valid");
  }
  return header;
}

std::vector<std::byte> encode_frame(const Frame& frame) {
  Encoder encoder;
  put_frame_fields(encoder, frame);
  encoder.put_array(frame.link.bytes);
  encoder.put_zeroes(kFrameReservedBytes);
  put_crc(encoder);
  return encoder.take();
}

Result<Frame> decode_frame(ConstByteSpan bytes) {
  Decoder decoder(bytes);
  if (bytes.size() != kFrameBytes || decoder.get<uint32_t>() != kJournalFrameMagic ||
      !crc_matches(bytes)) {
    return fail(ErrorKind::kCorrupt, "journal record: magic or checksum is wrong");
  }
  Frame frame;
  const auto type = decoder.get<uint16_t>();
  const auto flags = decoder.get<uint16_t>();
  frame.type = static_cast<RecordType>(type);
  frame.body_bytes = decoder.get<uint64_t>();
  frame.epoch.value = decoder.get<uint64_t>();
  frame.offset = decoder.get<uint64_t>();
  frame.link.bytes = decoder.get_array<16>();
  decoder.get_zeroes(kFrameReservedBytes);
  const bool known = frame.type == RecordType::kBatch || frame.type == RecordType::kConfirm;
  if (!decoder.ok() || !known || flags != 0 || !valid_length(frame.type, frame.body_bytes)) {
    return fail(ErrorKind::kCorrupt, "journal record: a field is not valid");
  }
  return frame;
}

Digest link_of(const Digest& previous, const Frame& frame, ConstByteSpan head) {
  Encoder encoder;
  encoder.put_array(previous.bytes);
  put_frame_fields(encoder, frame);
  encoder.put_bytes(head);
  return digest_of(encoder.bytes());
}

void encode_position(Encoder& encoder, const JournalPosition& position) {
  encoder.put(position.segment.value);
  encoder.put(position.offset);
  encoder.put_array(position.link.bytes);
}

JournalPosition decode_position(Decoder& decoder) {
  JournalPosition position;
  position.segment.value = decoder.get<uint64_t>();
  position.offset = decoder.get<uint64_t>();
  position.link.bytes = decoder.get_array<16>();
  return position;
}

std::vector<std::byte> encode_confirm(const ConfirmRecord& record) {
  CKPT_CHECK(record.covered.size() <= kCoveredEpochsMax);
  Encoder encoder;
  encode_checkpoint(encoder, record.checkpoint);
  encode_position(encoder, record.previous);
  encoder.put_zeroes(kConfirmReservedBytes);
  encoder.put(static_cast<uint32_t>(record.covered.size()));
  for (const CoveredSegment& segment : record.covered) {
    encoder.put(segment.epoch.value);
    encoder.put(segment.end_offset);
    encoder.put_array(segment.chain.bytes);
    encoder.put_array(segment.link.bytes);
    encoder.put_zeroes(8);
  }
  encoder.put_array(digest_of(encoder.bytes()).bytes);
  return encoder.take();
}

Result<ConfirmRecord> decode_confirm(ConstByteSpan bytes) {
  if (bytes.size() < kDigestBytes) {
    return fail(ErrorKind::kCorrupt, "confirm record: too short");
  }
  const ConstByteSpan fields = bytes.first(bytes.size() - kDigestBytes);
  if (Decoder(bytes.subspan(fields.size())).get_array<kDigestBytes>() != digest_of(fields).bytes) {
    return fail(ErrorKind::kCorrupt, "confirm record: the digest is wrong");
  }
  return decode_confirm_fields(fields);
}

}  // namespace ckpt
