// SPDX-License-Identifier: Apache-2.0
#include "common/frame.h"

#include <algorithm>
#include <array>

#include "common/checksum.h"
#include "common/primary_place.h"
#include "common/store_link.h"
#include "common/volume_name.h"

namespace ckpt {
namespace {

constexpr uint32_t kFrameMagic = 0x57504b43;  // "CKPW" in the order of the bytes
constexpr uint16_t kFrameVersion = 1;

struct KnownType {
  FrameType type;
  const char* name;
  uint64_t body_bytes_max;
};

constexpr uint64_t kTextBytesMax = uint64_t{64} << 10U;
constexpr uint64_t kBatchBodyBytesMax = kBatchHeaderBytes + 24 * kBatchExtentsMax + kBatchBytesMax;

constexpr std::array<KnownType, 40> kTypes{{
    {FrameType::kHello, "hello", 1024},
    {FrameType::kBeginSession, "begin session", 20 + kHostBytesMax + kImagePathBytesMax},
    {FrameType::kAccept, "accept", 8},
    {FrameType::kBatch, "batch", kBatchBodyBytesMax},
    {FrameType::kConfirm, "confirm", kTextBytesMax + 24 * kCoveredEpochsMax},
    {FrameType::kRollBack, "roll back", 40},
    {FrameType::kRead, "read", 16},
    {FrameType::kNextData, "next data", 8},
    {FrameType::kExport, "export", 16},
    {FrameType::kCheckpoints, "checkpoints", 8},
    {FrameType::kStatus, "status", 0},
    {FrameType::kPing, "ping", 0},
    {FrameType::kReadRanges, "read ranges", 8 + 16 * kRangesMax},
    {FrameType::kDigests, "digests", 24},
    {FrameType::kAttach, "attach", 16 + kPieceHeaderBytes + kPieceBytes},
    {FrameType::kReadAttachment, "read attachment", 10 + kAttachmentNameBytesMax},
    {FrameType::kName, "name", 2 + kVolumeNameBytesMax},
    {FrameType::kVolumes, "volumes", 18 + kVolumeNameBytesMax},
    {FrameType::kStale, "stale", 8},
    {FrameType::kConfirmCopy, "confirm copy", kTextBytesMax + 24 * (kForksMax + kCoveredEpochsMax)},
    {FrameType::kForks, "forks", 8 + 24 * kForksMax},
    {FrameType::kRelease, "release", 24},
    {FrameType::kPromote, "promote", 40},
    {FrameType::kStop, "stop", 0},
    {FrameType::kDone, "done", 0},
    {FrameType::kFailed, "failed", kTextBytesMax},
    {FrameType::kWorking, "working", 0},
    {FrameType::kWelcome, "welcome", 1024},
    {FrameType::kGreeting, "greeting", kTextBytesMax},
    {FrameType::kData, "data", kPieceBytes},
    {FrameType::kDataRange, "data range", 24},
    {FrameType::kExportBegins, "export begins", kTextBytesMax},
    {FrameType::kContent, "content", 8 + kPieceBytes},
    {FrameType::kHole, "hole", 16},
    {FrameType::kCheckpointList, "checkpoint list", kCheckpointsPerAnswer* uint64_t{16384}},
    {FrameType::kStoreStatus, "store status", kTextBytesMax},
    {FrameType::kDigestList, "digest list", 8 + 16 * kDigestsMax},
    {FrameType::kPiece, "piece", kPieceHeaderBytes + kPieceBytes},
    {FrameType::kVolumeList, "volume list", 8 + kVolumesPerAnswer*(26 + kVolumeNameBytesMax)},
    {FrameType::kStaleList, "stale list", 8 + 16 * kStaleMax},
}};

const KnownType* find_type(FrameType type) {
  const auto known = std::ranges::find(kTypes, type, &KnownType::type);
  return known == kTypes.end() ? nullptr : known;
}

}  // namespace

std::string other_version(uint32_t theirs, uint32_t ours) {
  return "the other side speaks version " + std::to_string(theirs) +
         " of the protocol, and this side version " + std::to_string(ours) +
         ": have the same version of ckpt on both machines";
}

std::vector<std::byte> encode_frame_header(const FrameHeader& header) {
  Encoder encoder;
  encoder.put(kFrameMagic);
  encoder.put(kFrameVersion);
  encoder.put(static_cast<uint16_t>(header.type));
  encoder.put(header.request);
  encoder.put(header.connection);
  encoder.put(header.body_bytes);
  encoder.put_zeroes(4);
  encoder.put_array(header.body_digest.bytes);
  encoder.put_zeroes(kFrameHeaderBytes - encoder.size() - sizeof(uint32_t));
  encoder.put(crc32c(encoder.bytes()));
  return encoder.take();
}

Result<FrameHeader> decode_frame_header(ConstByteSpan bytes) {
  Decoder decoder(bytes);
  const bool ours = bytes.size() == kFrameHeaderBytes && decoder.get<uint32_t>() == kFrameMagic;
  if (!ours) {
    return fail(ErrorKind::kCorrupt, "frame: not of this protocol, or damaged");
  }
  if (Decoder(bytes.last(sizeof(uint32_t))).get<uint32_t>() !=
      crc32c(bytes.first(kFrameHeaderBytes - sizeof(uint32_t)))) {
    return fail(ErrorKind::kCorrupt, "frame: its header is damaged");
  }
  if (const auto version = decoder.get<uint16_t>(); version != kFrameVersion) {
    return fail(ErrorKind::kInvalid, "frame: " + other_version(version, kFrameVersion));
  }
  FrameHeader header;
  header.type = static_cast<FrameType>(decoder.get<uint16_t>());
  header.request = decoder.get<uint64_t>();
  header.connection = decoder.get<uint64_t>();
  header.body_bytes = decoder.get<uint32_t>();
  decoder.get_zeroes(4);
  header.body_digest.bytes = decoder.get_array<16>();
  decoder.get_zeroes(decoder.remaining() - sizeof(uint32_t));
  const KnownType* const known = find_type(header.type);
  if (known == nullptr) {
    return fail(ErrorKind::kInvalid, "frame: of type " +
                                         std::to_string(static_cast<uint16_t>(header.type)) +
                                         ", which is not known here");
  }
  if (!decoder.ok() || header.request == 0 || header.body_bytes > known->body_bytes_max) {
    return fail(ErrorKind::kCorrupt, std::string(known->name) + ": a field is not valid");
  }
  return header;
}

uint64_t body_bytes_max(FrameType type) {
  const KnownType* const known = find_type(type);
  return known == nullptr ? 0 : known->body_bytes_max;
}

Digest frame_digest(FrameType type, ConstByteSpan body) {
  return digest_of(type == FrameType::kBatch ? body.first(std::min(body.size(), kBatchHeaderBytes))
                                             : body);
}

FrameHeader frame_of(FrameType type, uint64_t request, uint64_t connection, ConstByteSpan body) {
  return {type, request, connection, static_cast<uint32_t>(body.size()), frame_digest(type, body)};
}

Result<> check_body(const FrameHeader& header, ConstByteSpan body) {
  return body.size() == header.body_bytes && frame_digest(header.type, body) == header.body_digest
             ? Result<>()
             : fail(ErrorKind::kCorrupt,
                    std::string(frame_name(header.type)) + ": its body is damaged");
}

const char* frame_name(FrameType type) {
  const KnownType* const known = find_type(type);
  return known == nullptr ? "unknown" : known->name;
}

}  // namespace ckpt
