// SPDX-License-Identifier: Apache-2.0
// The bodies of frames. Each has an encoding and its reverse, which takes a whole body or refuses
// it (kCorrupt).
//
// Format: docs/wire-protocol.md, "Messages"
#pragma once

#include "common/frame.h"
#include "common/store_link.h"

namespace ckpt {

inline constexpr uint32_t kProtocolVersion = 1;
inline constexpr size_t kSoftwareBytesMax = 255;

// What a client wants to do on its connection.
enum class Role : uint8_t {
  kSession = 1,  // ship, confirm, roll back, and all that a reader does
  kReader = 2,
  kVisitor = 3,  // asks which volumes there are, or for one to be let go of
};

// Features, a bit each.
inline constexpr uint64_t kHasNames = 1;        // `name` is understood
inline constexpr uint64_t kHasPlaces = 2;       // `begin session` may say which primary it is
inline constexpr uint64_t kGoesOnCopying = 4;   // what there is of a first copy is compared with
inline constexpr uint64_t kRejoins = 8;         // a greeting may have bases
inline constexpr uint64_t kTakesCopies = 16;    // `confirm copy` is understood
inline constexpr uint64_t kHearsForks = 32;     // `forks` is understood
inline constexpr uint64_t kHearsOfRelays = 64;  // a store's status may tell of relays
inline constexpr uint64_t kReleases = 128;      // `release` is understood
inline constexpr uint64_t kPromotes = 256;      // `promote` is understood
inline constexpr uint64_t kKnowsPrimary = 512;  // `stop` is; a status may tell of the primary
inline constexpr uint64_t kFeatures = kHasNames | kHasPlaces | kGoesOnCopying | kRejoins |
                                      kTakesCopies | kHearsForks | kHearsOfRelays | kReleases |
                                      kPromotes | kKnowsPrimary;

struct Hello {
  uint32_t version = kProtocolVersion;  // the highest that the client speaks
  uint64_t features = 0;                // offered
  Uuid volume;                          // nil from a visitor alone
  uint64_t size_bytes = 0;              // of the disk; 0 from a reader: as the store has it
  Role role = Role::kReader;
  std::string software;  // for people
};

struct Welcome {
  uint32_t version = kProtocolVersion;  // spoken from here on; at most the client's
  std::chrono::milliseconds silence{};  // after so much of it a connection is given up
  uint64_t features = 0;                // of those offered, what is used
  uint64_t connection = 0;              // its number, in every frame from here on; never 0
  uint64_t size_bytes = 0;              // 0 to a visitor alone
  uint64_t window_bytes = 0;            // of the bodies of requests that may be unanswered
  std::string software;
};

struct ReadRequest {
  uint64_t offset = 0;
  uint32_t length = 0;  // 1 to kPieceBytes
};

// The last checkpoint, and the timeline that goes on from it.
struct Fork {
  CheckpointId from;
  Uuid to;
};

struct ExportBegins {
  CheckpointInfo checkpoint;
  uint64_t size_bytes = 0;
};

// data lies in the body that it was decoded from.
struct ContentData {
  uint64_t offset = 0;
  ConstByteSpan data;
};

// piece lies in the body that it was decoded from; check_piece() says whether it is one.
struct AttachRequest {
  Epoch epoch;
  uint32_t index = 0;
  ConstByteSpan piece;
};

struct AttachmentRequest {
  Epoch number;
  std::string name;
};

struct CheckpointList {
  std::vector<CheckpointInfo> checkpoints;  // oldest first
  bool more = false;                        // after the last of these
};

std::vector<std::byte> encode_hello(const Hello& hello);
Result<Hello> decode_hello(ConstByteSpan body);
std::vector<std::byte> encode_welcome(const Welcome& welcome);
Result<Welcome> decode_welcome(ConstByteSpan body);

std::vector<std::byte> encode_greeting(const StoreGreeting& greeting);
Result<StoreGreeting> decode_greeting(ConstByteSpan body);
std::vector<std::byte> encode_accept(uint64_t incarnation);
Result<uint64_t> decode_accept(ConstByteSpan body);
// The batch's header and its payload; the payload is checked by decode_batch().
std::vector<std::byte> encode_batch_body(const EncodedBatch& batch);
Result<EncodedBatch> decode_batch_body(ConstByteSpan body);
std::vector<std::byte> encode_confirmation(const Confirmation& confirmation);
Result<Confirmation> decode_confirmation(ConstByteSpan body);
std::vector<std::byte> encode_roll_back(const Fork& fork);
Result<Fork> decode_roll_back(ConstByteSpan body);
// The same: what the store is to be the primary of.
std::vector<std::byte> encode_promote(const Fork& fork);
Result<Fork> decode_promote(ConstByteSpan body);

std::vector<std::byte> encode_read(const ReadRequest& request);
Result<ReadRequest> decode_read(ConstByteSpan body);
// At most kRangesMax, none of them empty.
std::vector<std::byte> encode_read_ranges(std::span<const ByteRange> ranges);
Result<std::vector<ByteRange>> decode_read_ranges(ConstByteSpan body);
// At most kDigestsMax blocks, not none.
std::vector<std::byte> encode_digests(const DigestQuery& query);
// The size of the disk is the receiver's to fill in.
Result<DigestQuery> decode_digests(ConstByteSpan body);
std::vector<std::byte> encode_digest_list(std::span<const Digest> digests);
Result<std::vector<Digest>> decode_digest_list(ConstByteSpan body);
std::vector<std::byte> encode_attach(const AttachRequest& request);
Result<AttachRequest> decode_attach(ConstByteSpan body);
std::vector<std::byte> encode_read_attachment(const AttachmentRequest& request);
Result<AttachmentRequest> decode_read_attachment(ConstByteSpan body);
std::vector<std::byte> encode_next_data(uint64_t offset);
Result<uint64_t> decode_next_data(ConstByteSpan body);
std::vector<std::byte> encode_data_range(const std::optional<ByteRange>& range);
Result<std::optional<ByteRange>> decode_data_range(ConstByteSpan body);

// Nothing: the last.
std::vector<std::byte> encode_export(const std::optional<Epoch>& number);
Result<std::optional<Epoch>> decode_export(ConstByteSpan body);
std::vector<std::byte> encode_export_begins(const ExportBegins& begins);
Result<ExportBegins> decode_export_begins(ConstByteSpan body);
std::vector<std::byte> encode_content(const ContentData& content);
Result<ContentData> decode_content(ConstByteSpan body);
std::vector<std::byte> encode_hole(const ByteRange& range);
Result<ByteRange> decode_hole(ConstByteSpan body);

// Those after this number.
std::vector<std::byte> encode_checkpoints(const Epoch& after);
Result<Epoch> decode_checkpoints(ConstByteSpan body);
std::vector<std::byte> encode_checkpoint_list(const CheckpointList& list);
Result<CheckpointList> decode_checkpoint_list(ConstByteSpan body);
std::vector<std::byte> encode_store_status(const StoreStatus& status);
Result<StoreStatus> decode_store_status(ConstByteSpan body);

// An error's number is an errno of Linux, for people; a kind that is not known reads as kIo.
std::vector<std::byte> encode_failed(const Error& error);
Result<Error> decode_failed(ConstByteSpan body);

}  // namespace ckpt
