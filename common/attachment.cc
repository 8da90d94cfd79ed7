// SPDX-License-Identifier: Apache-2.0
#include "common/attachment.h"

#include <algorithm>

#include "common/checksum.h"
#include "common/text.h"

namespace ckpt {
namespace {

constexpr uint32_t kPieceMagic = 0x41504b43;  // "CKPA" in the order of the bytes

Unexpected corrupt(const char* what) {
  return fail(ErrorKind::kCorrupt, std::string("attachment: ") + what);
}

}  // namespace

bool valid_attachment_name(const std::string& name) {
  return !name.empty() && name.size() <= kAttachmentNameBytesMax && name != "." && name != ".." &&
         name.find('/') == std::string::npos && is_utf8(name) && !has_control_character(name);
}

bool valid_attachments(const std::vector<AttachmentInfo>& attachments) {
  const bool valid = std::ranges::all_of(attachments, [](const AttachmentInfo& one) {
    return valid_attachment_name(one.name) && one.size_bytes <= kAttachmentBytesMax;
  });
  std::vector<std::string> names(attachments.size());
  std::ranges::transform(attachments, names.begin(), &AttachmentInfo::name);
  std::ranges::sort(names);
  return valid && attachments.size() <= kAttachmentsMax &&
         std::ranges::adjacent_find(names) == names.end();
}

std::vector<std::byte> encode_piece(uint64_t offset, ConstByteSpan raw,
                                    const Compression& compression) {
  std::optional<ConstByteSpan> packed;
  if (compression.codec == Codec::kZstd && shrinks(raw, compression.level)) {
    packed = compress(raw, compression.level);
  }
  const ConstByteSpan payload = packed.value_or(raw);
  Encoder encoder;
  encoder.put(kPieceMagic);
  encoder.put(static_cast<uint8_t>(packed ? Codec::kZstd : Codec::kNone));
  encoder.put_zeroes(3);
  encoder.put(static_cast<uint32_t>(raw.size()));
  encoder.put(static_cast<uint32_t>(payload.size()));
  encoder.put(offset);
  encoder.put_array(digest_of(payload).bytes);
  encoder.put_zeroes(4);
  encoder.put(crc32c(encoder.bytes()));
  encoder.put_bytes(payload);
  return encoder.take();
}

Result<PieceHeader> decode_piece_header(ConstByteSpan bytes) {
  constexpr size_t kCrcAt = kPieceHeaderBytes - sizeof(uint32_t);
  Decoder decoder(bytes);
  const bool ours = bytes.size() == kPieceHeaderBytes && decoder.get<uint32_t>() == kPieceMagic;
  if (!ours || Decoder(bytes.subspan(kCrcAt)).get<uint32_t>() != crc32c(bytes.first(kCrcAt))) {
    return corrupt("the header of a piece is damaged");
  }
  PieceHeader header;
  const auto codec = decoder.get<uint8_t>();
  header.codec = static_cast<Codec>(codec);
  decoder.get_zeroes(3);
  header.raw_bytes = decoder.get<uint32_t>();
  header.stored_bytes = decoder.get<uint32_t>();
  header.offset = decoder.get<uint64_t>();
  header.digest.bytes = decoder.get_array<16>();
  decoder.get_zeroes(4);
  const bool fits = header.codec == Codec::kNone ? header.stored_bytes == header.raw_bytes
                                                 : header.stored_bytes <= header.raw_bytes;
  const bool valid = decoder.ok() && codec <= 1 && fits && header.raw_bytes > 0 &&
                     header.raw_bytes <= kPieceBytes && header.offset <= kAttachmentBytesMax;
  return valid ? Result<PieceHeader>(header) : corrupt("a field of a piece is not valid");
}

Result<PieceHeader> check_piece(ConstByteSpan piece) {
  CKPT_ASSIGN(const PieceHeader header,
              decode_piece_header(piece.first(std::min<size_t>(piece.size(), kPieceHeaderBytes))));
  const ConstByteSpan payload = piece.subspan(kPieceHeaderBytes);
  if (payload.size() != header.stored_bytes || digest_of(payload) != header.digest) {
    return corrupt("the digest of a piece is wrong");
  }
  if (header.codec == Codec::kZstd) {
    CKPT_TRY(check_frame(payload, header.raw_bytes));
  }
  return header;
}

Result<> decode_piece(const PieceHeader& header, ConstByteSpan piece, std::vector<std::byte>& raw) {
  const ConstByteSpan payload = piece.subspan(kPieceHeaderBytes);
  if (header.codec == Codec::kNone) {
    raw.assign(payload.begin(), payload.end());
    return {};
  }
  raw.resize(header.raw_bytes);
  return decompress(payload, raw);
}

Result<> AttachmentCounter::add(const PieceHeader& header, ConstByteSpan piece) {
  if (header.offset != info_.size_bytes) {
    return corrupt("a piece is not the next one");
  }
  info_.size_bytes += header.raw_bytes;
  info_.stored_bytes += piece.size();
  Encoder encoder;
  encoder.put_array(info_.digest.bytes);
  encoder.put_bytes(piece.first(kPieceHeaderBytes));
  info_.digest = digest_of(encoder.bytes());
  return {};
}

}  // namespace ckpt
