// SPDX-License-Identifier: Apache-2.0
// A batch: blocks of one epoch as they were read from the primary, on their way to the store. The
// same encoding travels over a link and stands in the journal.
//
// Format: docs/batch-format.md
#pragma once

#include <vector>

#include "common/block.h"
#include "common/codec.h"
#include "common/result.h"

namespace ckpt {

enum class ExtentKind : uint8_t { kData = 0, kZero = 1 };

// Bytes of the disk in a batch. Starts at a block; ends at a block or at the disk's end.
struct Extent {
  uint64_t offset = 0;
  uint64_t length = 0;
  ExtentKind kind = ExtentKind::kData;
  auto operator<=>(const Extent&) const = default;
};

// Limits of one batch, checked before anything is allocated.
inline constexpr uint64_t kBatchBytesMax = uint64_t{64} << 20U;  // of data
inline constexpr uint64_t kBatchExtentsMax = 65536;

// What identifies a batch and its content.
struct BatchHeader {
  Uuid volume{};
  Uuid timeline{};
  Epoch epoch{};
  uint64_t sequence = 0;  // in the order of the reads; never used twice in an incarnation
  uint64_t incarnation = 0;
  Codec codec = Codec::kNone;
  uint32_t extent_count = 0;
  uint64_t data_bytes = 0;    // of all data extents, before compression
  uint64_t stored_bytes = 0;  // of the payload: extent table and data, as stored
  Digest payload_digest{};    // XXH3-128 of the payload as stored
};

// A batch ready to be sent: header fields and the payload they describe.
struct EncodedBatch {
  BatchHeader header;
  std::vector<std::byte> payload;
};

// A batch after decoding: extents and the concatenated content of its data extents.
struct Batch {
  BatchHeader header;
  std::vector<Extent> extents;
  std::vector<std::byte> data;
};

// Fills in counts, codec and digest of the header. Data that does not shrink (sampled) is stored as
// is.
EncodedBatch encode_batch(const BatchHeader& identity, const std::vector<Extent>& extents,
                          ConstByteSpan data, const Compression& compression);

// The reverse, with every check of the format page: the digest before decompression, extents within
// the disk and ascending, sizes as declared. kCorrupt says what is not valid.
Result<Batch> decode_batch(const BatchHeader& header, ConstByteSpan payload, uint64_t size_bytes);

// The same into a batch whose memory is used again: fresh pages cost more than what is done with
// them. What it held last, if encoded, tells whether data is worth sampling. After an error the
// content of the batch is undefined.
void encode_batch_into(EncodedBatch& batch, const BatchHeader& identity,
                       const std::vector<Extent>& extents, ConstByteSpan data,
                       const Compression& compression);
Result<> decode_batch_into(Batch& batch, const BatchHeader& header, ConstByteSpan payload,
                           uint64_t size_bytes);

// The extents alone, with every check but that compressed data can be decompressed.
Result<std::vector<Extent>> decode_extents(const BatchHeader& header, ConstByteSpan payload,
                                           uint64_t size_bytes);

// The fixed 128-byte form of a header. Includes CRC32C over itself.
inline constexpr size_t kBatchHeaderBytes = 128;
std::vector<std::byte> encode_batch_header(const BatchHeader& header);
Result<BatchHeader> decode_batch_header(ConstByteSpan bytes);

// The chain over an epoch's batches: digest of the previous link and this batch's encoded header.
Digest chain(const Digest& previous, const BatchHeader& header);

// Both sides compute a checkpoint's digest from what was sent and what arrived; only equal ones are
// confirmed. Covered: the epochs with batches since the parent, ascending, each with its chain.
struct CoveredEpoch {
  Epoch epoch{};
  Digest chain;
  auto operator<=>(const CoveredEpoch&) const = default;
};
// An epoch is covered by its own checkpoint; void ones by the next that exists.
inline constexpr size_t kCoveredEpochsMax = 65536;
Digest checkpoint_digest(const Digest& parent, const Uuid& timeline, Epoch number,
                         const std::vector<CoveredEpoch>& covered);

}  // namespace ckpt
