// SPDX-License-Identifier: Apache-2.0
// A frame: one message between a primary, or a tool, and backupd. A header, and a body that
// common/message.h knows.
//
// Format: docs/wire-protocol.md
#pragma once

#include "common/batch.h"

namespace ckpt {

// What a frame says. Requests, which a client sends, are below 128; answers are above.
enum class FrameType : uint16_t {
  kHello = 1,
  kBeginSession = 2,
  kAccept = 3,
  kBatch = 4,
  kConfirm = 5,
  kRollBack = 6,
  kRead = 7,
  kNextData = 8,
  kExport = 9,
  kCheckpoints = 10,
  kStatus = 11,
  kPing = 12,
  kReadRanges = 13,
  kDigests = 14,
  kAttach = 15,
  kReadAttachment = 16,
  kName = 17,
  kVolumes = 18,
  kStale = 19,
  kConfirmCopy = 20,
  kForks = 21,
  kRelease = 22,
  kPromote = 23,
  kStop = 24,

  kDone = 128,
  kFailed = 129,
  kWorking = 130,
  kWelcome = 131,
  kGreeting = 132,
  kData = 133,
  kDataRange = 134,
  kExportBegins = 135,
  kContent = 136,
  kHole = 137,
  kCheckpointList = 138,
  kStoreStatus = 139,
  kDigestList = 140,
  kPiece = 141,
  kVolumeList = 142,
  kStaleList = 143,
};

constexpr bool is_request(FrameType type) { return static_cast<uint16_t>(type) < 128; }

struct FrameHeader {
  FrameType type = FrameType::kPing;
  uint64_t request = 0;     // the number of the request, also in its answers; 1, 2, 3, …
  uint64_t connection = 0;  // drawn by the server; 0 in hello and its answer
  uint32_t body_bytes = 0;
  Digest body_digest{};
};

// A list of checkpoints that is longer comes in parts.
inline constexpr uint64_t kCheckpointsPerAnswer = 500;

inline constexpr size_t kFrameHeaderBytes = 64;
std::vector<std::byte> encode_frame_header(const FrameHeader& header);
// Every check that needs no body; body_bytes is within body_bytes_max() then. kCorrupt says what is
// not valid; kInvalid: a version or a type that is not known.
Result<FrameHeader> decode_frame_header(ConstByteSpan bytes);

// The most that the body of a frame of that type may have.
uint64_t body_bytes_max(FrameType type);

// Of the body; of a batch that of its header alone, which vouches for the rest.
Digest frame_digest(FrameType type, ConstByteSpan body);

// A header for that body, and the check of a body that came.
FrameHeader frame_of(FrameType type, uint64_t request, uint64_t connection, ConstByteSpan body);
Result<> check_body(const FrameHeader& header, ConstByteSpan body);

// For people: why the two cannot talk, and what to do.
std::string other_version(uint32_t theirs, uint32_t ours);

// As people read it: "confirm".
const char* frame_name(FrameType type);

}  // namespace ckpt
