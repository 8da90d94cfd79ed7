// SPDX-License-Identifier: Apache-2.0
// Process or VM state that is stored with a checkpoint: a stream of bytes, in pieces. A piece is
// encoded once, by whoever has the stream, and travels and is kept as it is.
//
// Format: docs/attachment-format.md
#pragma once

#include <string>
#include <vector>

#include "common/block.h"
#include "common/bytes.h"
#include "common/codec.h"

namespace ckpt {

inline constexpr size_t kAttachmentsMax = 32;  // of a checkpoint
inline constexpr size_t kAttachmentNameBytesMax = 255;
inline constexpr uint64_t kAttachmentBytesMax = uint64_t{1} << 60U;
inline constexpr uint64_t kPieceHeaderBytes = 48;

// What a checkpoint says of one. Its content is what these pieces are.
struct AttachmentInfo {
  std::string name{};
  uint64_t size_bytes = 0;
  uint64_t stored_bytes = 0;  // of its pieces, with their headers
  Digest digest{};            // over the headers of its pieces, in order: see the format page
  bool operator==(const AttachmentInfo&) const = default;
};

// Whether it can be a file's: UTF-8, 1 to 255 bytes, no '/' and no control characters, not "." or
// "..".
bool valid_attachment_name(const std::string& name);
// The names are different and valid, and there are at most kAttachmentsMax.
bool valid_attachments(const std::vector<AttachmentInfo>& attachments);

struct PieceHeader {
  Codec codec = Codec::kNone;
  uint32_t raw_bytes = 0;     // 1 to kPieceBytes
  uint32_t stored_bytes = 0;  // of what follows; at most raw_bytes
  uint64_t offset = 0;        // of its first byte, in the stream
  Digest digest{};            // of what follows
};

// Header and payload of a piece of the stream; it is not longer than kPieceBytes.
std::vector<std::byte> encode_piece(uint64_t offset, ConstByteSpan raw,
                                    const Compression& compression);
// The first 48 bytes. kCorrupt: not a header, or beyond the limits.
Result<PieceHeader> decode_piece_header(ConstByteSpan bytes);
// A whole one: its header, after every check but that it can be decompressed. kCorrupt.
Result<PieceHeader> check_piece(ConstByteSpan piece);
// What it holds, of a whole one that was checked. kCorrupt.
Result<> decode_piece(const PieceHeader& header, ConstByteSpan piece, std::vector<std::byte>& raw);

// Takes the pieces of one attachment in order.
class AttachmentCounter {
 public:
  // kCorrupt: it is not the next one.
  Result<> add(const PieceHeader& header, ConstByteSpan piece);
  // All so far; the name is the caller's.
  [[nodiscard]] const AttachmentInfo& info() const { return info_; }

 private:
  AttachmentInfo info_;
};

}  // namespace ckpt
