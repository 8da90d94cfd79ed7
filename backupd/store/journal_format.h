// SPDX-License-Identifier: Apache-2.0
// What stands in a journal file: a header, then records, each a frame and a body. Encoding only, no
// I/O.
//
// Format: docs/journal-format.md
#pragma once

#include <vector>

#include "common/batch.h"
#include "common/store_link.h"

namespace ckpt {

inline constexpr size_t kJournalHeaderBytes = 128;
inline constexpr size_t kFrameBytes = 64;
// Room for as many covered epochs and a checkpoint with the longest name and message.
inline constexpr uint64_t kConfirmBytesMax = uint64_t{6} << 20U;

// The head of one epoch's file.
struct JournalHeader {
  Uuid volume;
  Uuid timeline;
  Epoch epoch;
  uint64_t incarnation = 0;
  auto operator<=>(const JournalHeader&) const = default;
};

enum class RecordType : uint16_t { kBatch = 1, kConfirm = 2 };

// Before each body. link chains the records of a file in their order: it covers all before it.
struct Frame {
  RecordType type = RecordType::kBatch;
  uint64_t body_bytes = 0;
  Epoch epoch;
  uint64_t offset = 0;  // of this frame in its file
  Digest link;
};

// Where a confirm record stands, and what it must be. Segment 0: nowhere.
struct JournalPosition {
  Epoch segment;        // the file's epoch: the checkpoint's number
  uint64_t offset = 0;  // of its frame
  Digest link;
  auto operator<=>(const JournalPosition&) const = default;
  [[nodiscard]] bool is_none() const { return *this == JournalPosition{}; }
};

// The part of one file that a checkpoint covers.
struct CoveredSegment {
  Epoch epoch;
  uint64_t end_offset = 0;  // of the last batch's end
  Digest chain;             // of the batches, in the order of their sequence numbers
  Digest link;              // of the last record
  auto operator<=>(const CoveredSegment&) const = default;
};

// The body of a confirm record.
struct ConfirmRecord {
  CheckpointInfo checkpoint;
  JournalPosition previous;             // the confirm record before it, if that was not applied yet
  std::vector<CoveredSegment> covered;  // ascending epochs
};

// "00000000000000000007", and back; 0 if it is no such name.
std::string journal_name(Epoch epoch);
Epoch parse_journal_name(const std::string& name);

std::vector<std::byte> encode_journal_header(const JournalHeader& header);
Result<JournalHeader> decode_journal_header(ConstByteSpan bytes);

std::vector<std::byte> encode_frame(const Frame& frame);
// Checks everything but the link, which depends on what is before.
Result<Frame> decode_frame(ConstByteSpan bytes);
// The link of a record. head: of a batch its header (which holds the payload's digest), else the
// body.
Digest link_of(const Digest& previous, const Frame& frame, ConstByteSpan head);

void encode_position(Encoder& encoder, const JournalPosition& position);
JournalPosition decode_position(Decoder& decoder);

std::vector<std::byte> encode_confirm(const ConfirmRecord& record);
Result<ConfirmRecord> decode_confirm(ConstByteSpan bytes);

}  // namespace ckpt
