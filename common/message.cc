// SPDX-License-Identifier: Apache-2.0
#include "common/message.h"

#include <algorithm>
#include <array>

#include "common/checkpoint_codec.h"
#include "common/relay_codec.h"
#include "common/text.h"
#include "common/whole_body.h"

namespace ckpt {
namespace {

constexpr size_t kCoveredEpochBytes = 24;
constexpr unsigned kRelayCountShift = 8;
constexpr unsigned kPrimaryShift = 16;
constexpr size_t kStatusTextBytesMax = 4096;

bool is_on_disk(const ByteRange& range) {
  return range.offset <= kDiskBytesMax && range.length <= kDiskBytesMax - range.offset;
}

void put_range(Encoder& encoder, const ByteRange& range) {
  encoder.put(range.offset);
  encoder.put(range.length);
}

ByteRange get_range(Decoder& decoder) {
  ByteRange range;
  range.offset = decoder.get<uint64_t>();
  range.length = decoder.get<uint64_t>();
  return range;
}

// In a greeting, where 1 says that a checkpoint is there.
constexpr uint64_t kBegun = 2;
constexpr uint64_t kHasBases = 3;

// One that may be missing: whether it is there in eight bytes, then itself.
void put_checkpoint(Encoder& encoder, const std::optional<CheckpointInfo>& checkpoint) {
  encoder.put(uint64_t{checkpoint ? 1U : 0U});
  if (checkpoint) {
    encode_checkpoint(encoder, *checkpoint);
  }
}

Result<std::optional<CheckpointInfo>> get_checkpoint(Decoder& decoder) {
  const auto count = decoder.get<uint64_t>();
  if (count > 1) {
    return fail(ErrorKind::kCorrupt, "a checkpoint that is neither there nor not");
  }
  if (count == 0) {
    return std::optional<CheckpointInfo>();
  }
  CKPT_ASSIGN(CheckpointInfo checkpoint, decode_checkpoint(decoder));
  return std::optional(std::move(checkpoint));
}

void put_bases(Encoder& encoder, const std::vector<BaseCheckpoint>& bases) {
  encoder.put(kHasBases);
  encoder.put(uint64_t{bases.size()});
  for (const BaseCheckpoint& base : bases) {
    encode_base(encoder, base);
  }
}

bool get_bases(Decoder& decoder, std::vector<BaseCheckpoint>& bases) {
  const auto count = decoder.get<uint64_t>();
  if (count == 0 || count > kBasesMax) {
    return false;
  }
  for (uint64_t i = 0; i < count; ++i) {
    bases.push_back(decode_base(decoder));
  }
  return true;
}

std::vector<std::byte> encode_number(uint64_t number) {
  Encoder encoder;
  encoder.put(number);
  return encoder.take();
}

Result<uint64_t> decode_number(FrameType type, ConstByteSpan body) {
  Decoder decoder(body);
  const auto number = decoder.get<uint64_t>();
  return whole(decoder, true, type, number);
}

// Kinds as they are on the wire: the place in this list, from 1.
constexpr std::array<ErrorKind, 14> kKinds{
    ErrorKind::kIo,          ErrorKind::kNoSpace, ErrorKind::kInvalid,  ErrorKind::kNotFound,
    ErrorKind::kBusy,        ErrorKind::kTimeout, ErrorKind::kMismatch, ErrorKind::kHalfway,
    ErrorKind::kUnreachable, ErrorKind::kFenced,  ErrorKind::kCorrupt,  ErrorKind::kUnreadable,
    ErrorKind::kVoid,        ErrorKind::kDenied};

Result<Fork> decode_fork(ConstByteSpan body, FrameType type) {
  Decoder decoder(body);
  Fork fork;
  fork.from = decode_checkpoint_id(decoder);
  fork.to.bytes = decoder.get_array<16>();
  return whole(decoder, fork.from.number.value > 0 && !fork.to.is_nil(), type, fork);
}

}  // namespace

// ---- greeting one another

std::vector<std::byte> encode_hello(const Hello& hello) {
  Encoder encoder;
  encoder.put(hello.version);
  encoder.put(static_cast<uint8_t>(hello.role));
  encoder.put_zeroes(3);
  encoder.put(hello.features);
  encoder.put_array(hello.volume.bytes);
  encoder.put(hello.size_bytes);
  encoder.put_string(shortened(hello.software, kSoftwareBytesMax));
  return encoder.take();
}

Result<Hello> decode_hello(ConstByteSpan body) {
  Decoder decoder(body);
  Hello hello;
  hello.version = decoder.get<uint32_t>();
  const auto role = decoder.get<uint8_t>();
  decoder.get_zeroes(3);
  hello.features = decoder.get<uint64_t>();
  hello.volume.bytes = decoder.get_array<16>();
  hello.size_bytes = decoder.get<uint64_t>();
  hello.software = decoder.get_string();
  hello.role = static_cast<Role>(role);
  const bool is_known = hello.role >= Role::kSession && hello.role <= Role::kVisitor;
  const bool is_visitor = hello.role == Role::kVisitor;
  const bool has_size =
      is_visitor ? hello.size_bytes == 0 : hello.size_bytes > 0 || hello.role == Role::kReader;
  return whole(decoder,
               hello.version > 0 && is_known && has_size && hello.size_bytes <= kDiskBytesMax &&
                   hello.volume.is_nil() == is_visitor &&
                   hello.software.size() <= kSoftwareBytesMax,
               FrameType::kHello, hello);
}

std::vector<std::byte> encode_welcome(const Welcome& welcome) {
  Encoder encoder;
  encoder.put(welcome.version);
  encoder.put(static_cast<uint32_t>(welcome.silence.count()));
  encoder.put(welcome.features);
  encoder.put(welcome.connection);
  encoder.put(welcome.size_bytes);
  encoder.put(welcome.window_bytes);
  encoder.put_string(shortened(welcome.software, kSoftwareBytesMax));
  return encoder.take();
}

Result<Welcome> decode_welcome(ConstByteSpan body) {
  Decoder decoder(body);
  Welcome welcome;
  welcome.version = decoder.get<uint32_t>();
  welcome.silence = std::chrono::milliseconds(decoder.get<uint32_t>());
  welcome.features = decoder.get<uint64_t>();
  welcome.connection = decoder.get<uint64_t>();
  welcome.size_bytes = decoder.get<uint64_t>();
  welcome.window_bytes = decoder.get<uint64_t>();
  welcome.software = decoder.get_string();
  return whole(decoder,
               welcome.version > 0 && welcome.silence.count() > 0 && welcome.connection != 0 &&
                   welcome.size_bytes <= kDiskBytesMax && welcome.window_bytes > 0 &&
                   welcome.software.size() <= kSoftwareBytesMax,
               FrameType::kWelcome, welcome);
}

// ---- a session

std::vector<std::byte> encode_greeting(const StoreGreeting& greeting) {
  Encoder encoder;
  encoder.put(greeting.incarnation);
  if (!greeting.bases.empty()) {
    put_bases(encoder, greeting.bases);
  } else if (greeting.is_begun) {
    encoder.put(kBegun);
  } else {
    put_checkpoint(encoder, greeting.last);
  }
  return encoder.take();
}

Result<StoreGreeting> decode_greeting(ConstByteSpan body) {
  Decoder decoder(body);
  StoreGreeting greeting;
  greeting.incarnation = decoder.get<uint64_t>();
  const auto kind = Decoder(body.subspan(body.size() - decoder.remaining())).get<uint64_t>();
  greeting.is_begun = kind == kBegun || kind == kHasBases;
  if (!greeting.is_begun) {
    CKPT_ASSIGN(greeting.last, get_checkpoint(decoder));
    return whole(decoder, true, FrameType::kGreeting, greeting);
  }
  decoder.get<uint64_t>();
  const bool valid = kind == kBegun || get_bases(decoder, greeting.bases);
  return whole(decoder, valid, FrameType::kGreeting, greeting);
}

std::vector<std::byte> encode_accept(uint64_t incarnation) { return encode_number(incarnation); }

Result<uint64_t> decode_accept(ConstByteSpan body) {
  CKPT_ASSIGN(const uint64_t incarnation, decode_number(FrameType::kAccept, body));
  return incarnation != 0 ? Result<uint64_t>(incarnation)
                          : fail(ErrorKind::kCorrupt, "accept: of no incarnation");
}

std::vector<std::byte> encode_batch_body(const EncodedBatch& batch) {
  Encoder encoder;
  encoder.put_bytes(encode_batch_header(batch.header));
  encoder.put_bytes(batch.payload);
  return encoder.take();
}

Result<EncodedBatch> decode_batch_body(ConstByteSpan body) {
  if (body.size() < kBatchHeaderBytes) {
    return fail(ErrorKind::kCorrupt, "batch: shorter than its header");
  }
  EncodedBatch batch;
  CKPT_ASSIGN(batch.header, decode_batch_header(body.first(kBatchHeaderBytes)));
  const ConstByteSpan payload = body.subspan(kBatchHeaderBytes);
  if (payload.size() != batch.header.stored_bytes) {
    return fail(ErrorKind::kCorrupt, "batch: of another length than its header says");
  }
  batch.payload.assign(payload.begin(), payload.end());
  return batch;
}

std::vector<std::byte> encode_confirmation(const Confirmation& confirmation) {
  Encoder encoder;
  encode_checkpoint(encoder, confirmation.checkpoint);
  encoder.put(static_cast<uint32_t>(confirmation.covered.size()));
  for (const CoveredEpoch& covered : confirmation.covered) {
    encoder.put(covered.epoch.value);
    encoder.put_array(covered.chain.bytes);
  }
  return encoder.take();
}

Result<Confirmation> decode_confirmation(ConstByteSpan body) {
  Decoder decoder(body);
  Confirmation confirmation;
  CKPT_ASSIGN(confirmation.checkpoint, decode_checkpoint(decoder));
  const auto count = decoder.get<uint32_t>();
  if (count > kCoveredEpochsMax || decoder.remaining() != count * kCoveredEpochBytes) {
    return fail(ErrorKind::kCorrupt, "confirm: of another length than it says");
  }
  for (uint32_t i = 0; i < count; ++i) {
    const Epoch epoch{decoder.get<uint64_t>()};
    confirmation.covered.push_back({epoch, Digest{decoder.get_array<16>()}});
  }
  return whole(decoder, true, FrameType::kConfirm, confirmation);
}

std::vector<std::byte> encode_roll_back(const Fork& fork) {
  Encoder encoder;
  encode_checkpoint_id(encoder, fork.from);
  encoder.put_array(fork.to.bytes);
  return encoder.take();
}

Result<Fork> decode_roll_back(ConstByteSpan body) {
  return decode_fork(body, FrameType::kRollBack);
}

std::vector<std::byte> encode_promote(const Fork& fork) { return encode_roll_back(fork); }

Result<Fork> decode_promote(ConstByteSpan body) { return decode_fork(body, FrameType::kPromote); }

// ---- what is confirmed

std::vector<std::byte> encode_read(const ReadRequest& request) {
  Encoder encoder;
  encoder.put(request.offset);
  encoder.put(request.length);
  encoder.put_zeroes(4);
  return encoder.take();
}

Result<ReadRequest> decode_read(ConstByteSpan body) {
  Decoder decoder(body);
  ReadRequest request;
  request.offset = decoder.get<uint64_t>();
  request.length = decoder.get<uint32_t>();
  decoder.get_zeroes(4);
  return whole(decoder,
               request.length > 0 && request.length <= kPieceBytes &&
                   is_on_disk({request.offset, request.length}),
               FrameType::kRead, request);
}

std::vector<std::byte> encode_read_ranges(std::span<const ByteRange> ranges) {
  Encoder encoder;
  encoder.put(static_cast<uint32_t>(ranges.size()));
  encoder.put_zeroes(4);
  for (const ByteRange& range : ranges) {
    put_range(encoder, range);
  }
  return encoder.take();
}

Result<std::vector<ByteRange>> decode_read_ranges(ConstByteSpan body) {
  Decoder decoder(body);
  const auto count = decoder.get<uint32_t>();
  decoder.get_zeroes(4);
  bool valid = count > 0 && decoder.remaining() == count * sizeof(uint64_t) * 2;
  std::vector<ByteRange> ranges;
  ranges.reserve(valid ? count : 0);
  while (valid && ranges.size() < count) {
    ranges.push_back(get_range(decoder));
    valid = ranges.back().length > 0 && is_on_disk(ranges.back());
  }
  return whole(decoder, valid, FrameType::kReadRanges, ranges);
}

std::vector<std::byte> encode_digests(const DigestQuery& query) {
  Encoder encoder;
  encoder.put(query.blocks.first);
  encoder.put(query.blocks.count());
  encoder.put(query.seed);
  return encoder.take();
}

Result<DigestQuery> decode_digests(ConstByteSpan body) {
  Decoder decoder(body);
  const auto first = decoder.get<uint64_t>();
  const auto count = decoder.get<uint64_t>();
  const auto seed = decoder.get<uint64_t>();
  const bool valid = count > 0 && count <= kDigestsMax && first <= kDiskBytesMax / kBlockBytes;
  return whole(decoder, valid, FrameType::kDigests, DigestQuery{{first, first + count}, 0, seed});
}

std::vector<std::byte> encode_digest_list(std::span<const Digest> digests) {
  Encoder encoder;
  encoder.put(static_cast<uint32_t>(digests.size()));
  encoder.put_zeroes(4);
  for (const Digest& digest : digests) {
    encoder.put_array(digest.bytes);
  }
  return encoder.take();
}

Result<std::vector<Digest>> decode_digest_list(ConstByteSpan body) {
  Decoder decoder(body);
  const auto count = decoder.get<uint32_t>();
  decoder.get_zeroes(4);
  const bool valid = decoder.remaining() == count * sizeof(Digest::bytes);
  std::vector<Digest> digests(valid ? count : 0);
  for (Digest& digest : digests) {
    digest.bytes = decoder.get_array<16>();
  }
  return whole(decoder, valid, FrameType::kDigestList, digests);
}

std::vector<std::byte> encode_attach(const AttachRequest& request) {
  Encoder encoder;
  encoder.put(request.epoch.value);
  encoder.put(request.index);
  encoder.put_zeroes(4);
  encoder.put_bytes(request.piece);
  return encoder.take();
}

Result<AttachRequest> decode_attach(ConstByteSpan body) {
  constexpr size_t kHeadBytes = 16;
  Decoder decoder(body.first(std::min(body.size(), kHeadBytes)));
  AttachRequest request;
  request.epoch.value = decoder.get<uint64_t>();
  request.index = decoder.get<uint32_t>();
  decoder.get_zeroes(4);
  request.piece = body.subspan(std::min(body.size(), kHeadBytes));
  return whole(decoder, request.epoch.value > 0 && request.index < kAttachmentsMax,
               FrameType::kAttach, request);
}

std::vector<std::byte> encode_read_attachment(const AttachmentRequest& request) {
  Encoder encoder;
  encoder.put(request.number.value);
  encoder.put_string(request.name);
  return encoder.take();
}

Result<AttachmentRequest> decode_read_attachment(ConstByteSpan body) {
  Decoder decoder(body);
  AttachmentRequest request;
  request.number.value = decoder.get<uint64_t>();
  request.name = decoder.get_string();
  return whole(decoder, valid_attachment_name(request.name), FrameType::kReadAttachment, request);
}

std::vector<std::byte> encode_next_data(uint64_t offset) { return encode_number(offset); }

Result<uint64_t> decode_next_data(ConstByteSpan body) {
  CKPT_ASSIGN(const uint64_t offset, decode_number(FrameType::kNextData, body));
  return offset <= kDiskBytesMax ? Result<uint64_t>(offset)
                                 : fail(ErrorKind::kCorrupt, "next data: beyond any disk");
}

std::vector<std::byte> encode_data_range(const std::optional<ByteRange>& range) {
  Encoder encoder;
  encoder.put(uint64_t{range ? 1U : 0U});
  put_range(encoder, range.value_or(ByteRange{}));
  return encoder.take();
}

Result<std::optional<ByteRange>> decode_data_range(ConstByteSpan body) {
  Decoder decoder(body);
  const auto count = decoder.get<uint64_t>();
  const ByteRange range = get_range(decoder);
  const bool valid =
      count == 1 ? range.length > 0 && is_on_disk(range) : count == 0 && range == ByteRange{};
  return whole(decoder, valid, FrameType::kDataRange,
               count == 1 ? std::optional(range) : std::optional<ByteRange>());
}

// ---- exports

std::vector<std::byte> encode_export(const std::optional<Epoch>& number) {
  Encoder encoder;
  encoder.put(uint64_t{number ? 1U : 0U});
  encoder.put(number ? number->value : 0);
  return encoder.take();
}

Result<std::optional<Epoch>> decode_export(ConstByteSpan body) {
  Decoder decoder(body);
  const auto count = decoder.get<uint64_t>();
  const Epoch number{decoder.get<uint64_t>()};
  return whole(decoder, count <= 1 && (count == 1) == (number.value > 0), FrameType::kExport,
               count == 1 ? std::optional(number) : std::optional<Epoch>());
}

std::vector<std::byte> encode_export_begins(const ExportBegins& begins) {
  Encoder encoder;
  encoder.put(begins.size_bytes);
  encode_checkpoint(encoder, begins.checkpoint);
  return encoder.take();
}

Result<ExportBegins> decode_export_begins(ConstByteSpan body) {
  Decoder decoder(body);
  ExportBegins begins;
  begins.size_bytes = decoder.get<uint64_t>();
  CKPT_ASSIGN(begins.checkpoint, decode_checkpoint(decoder));
  return whole(decoder, begins.size_bytes > 0 && begins.size_bytes <= kDiskBytesMax,
               FrameType::kExportBegins, begins);
}

std::vector<std::byte> encode_content(const ContentData& content) {
  Encoder encoder;
  encoder.put(content.offset);
  encoder.put_bytes(content.data);
  return encoder.take();
}

Result<ContentData> decode_content(ConstByteSpan body) {
  Decoder decoder(body);
  ContentData content;
  content.offset = decoder.get<uint64_t>();
  content.data = decoder.get_bytes(decoder.remaining());
  return whole(decoder,
               !content.data.empty() && content.data.size() <= kPieceBytes &&
                   is_on_disk({content.offset, content.data.size()}),
               FrameType::kContent, content);
}

std::vector<std::byte> encode_hole(const ByteRange& range) {
  Encoder encoder;
  put_range(encoder, range);
  return encoder.take();
}

Result<ByteRange> decode_hole(ConstByteSpan body) {
  Decoder decoder(body);
  const ByteRange range = get_range(decoder);
  return whole(decoder, range.length > 0 && is_on_disk(range), FrameType::kHole, range);
}

// ---- what there is

std::vector<std::byte> encode_checkpoints(const Epoch& after) { return encode_number(after.value); }

Result<Epoch> decode_checkpoints(ConstByteSpan body) {
  CKPT_ASSIGN(const uint64_t after, decode_number(FrameType::kCheckpoints, body));
  return Epoch{after};
}

std::vector<std::byte> encode_checkpoint_list(const CheckpointList& list) {
  Encoder encoder;
  encoder.put(static_cast<uint32_t>(list.checkpoints.size()));
  encoder.put(uint32_t{list.more ? 1U : 0U});
  for (const CheckpointInfo& checkpoint : list.checkpoints) {
    encode_checkpoint(encoder, checkpoint);
  }
  return encoder.take();
}

Result<CheckpointList> decode_checkpoint_list(ConstByteSpan body) {
  Decoder decoder(body);
  CheckpointList list;
  const auto count = decoder.get<uint32_t>();
  const auto more = decoder.get<uint32_t>();
  list.more = more == 1;
  Epoch last{0};
  bool ascending = true;
  for (uint32_t i = 0; i < count && count <= kCheckpointsPerAnswer; ++i) {
    CKPT_ASSIGN(CheckpointInfo checkpoint, decode_checkpoint(decoder));
    ascending = ascending && last < checkpoint.id.number;
    last = checkpoint.id.number;
    list.checkpoints.push_back(std::move(checkpoint));
  }
  return whole(decoder, count <= kCheckpointsPerAnswer && more <= 1 && ascending,
               FrameType::kCheckpointList, list);
}

std::vector<std::byte> encode_store_status(const StoreStatus& status) {
  Encoder encoder;
  encoder.put(status.applied.value);
  encoder.put(status.pending_bytes);
  encoder.put(status.confirmed_bytes);
  encoder.put(status.free_bytes);
  encoder.put_string(shortened(status.address, kStatusTextBytesMax));
  encoder.put_string(shortened(status.state, kStatusTextBytesMax));
  encoder.put_string(shortened(status.error, kStatusTextBytesMax));
  encoder.put(uint64_t{status.confirmed ? 1U : 0U} |
              uint64_t{status.relays.size()} << kRelayCountShift |
              static_cast<uint64_t>(status.primary) << kPrimaryShift);
  if (status.confirmed) {
    encode_checkpoint(encoder, *status.confirmed);
  }
  put_relays(encoder, status.relays);
  return encoder.take();
}

Result<StoreStatus> decode_store_status(ConstByteSpan body) {
  Decoder decoder(body);
  StoreStatus status;
  status.applied = {decoder.get<uint64_t>()};
  status.pending_bytes = decoder.get<uint64_t>();
  status.confirmed_bytes = decoder.get<uint64_t>();
  status.free_bytes = decoder.get<uint64_t>();
  status.address = decoder.get_string();
  status.state = decoder.get_string();
  status.error = decoder.get_string();
  const auto parts = decoder.get<uint64_t>();
  const uint64_t checkpoints = parts % (uint64_t{1} << kRelayCountShift);
  if (checkpoints == 1) {
    CKPT_ASSIGN(status.confirmed, decode_checkpoint(decoder));
  } else if (checkpoints != 0) {
    return fail(ErrorKind::kCorrupt, "store status: a checkpoint that is neither there nor not");
  }
  constexpr auto kPresences = static_cast<uint64_t>(PrimaryPresence::kStopped) + 1;
  const uint64_t primary = parts >> kPrimaryShift;
  if (primary >= kPresences) {
    return fail(ErrorKind::kCorrupt, "store status: a primary that is in no state");
  }
  status.primary = static_cast<PrimaryPresence>(primary);
  CKPT_ASSIGN(status.relays,
              get_relays(decoder, parts % (uint64_t{1} << kPrimaryShift) >> kRelayCountShift));
  return whole(decoder,
               status.address.size() <= kStatusTextBytesMax &&
                   status.state.size() <= kStatusTextBytesMax &&
                   status.error.size() <= kStatusTextBytesMax,
               FrameType::kStoreStatus, status);
}

// ---- errors

std::vector<std::byte> encode_failed(const Error& error) {
  Encoder encoder;
  const auto kind = std::ranges::find(kKinds, error.kind);
  encoder.put(static_cast<uint32_t>(kind - kKinds.begin() + 1));
  encoder.put(static_cast<uint32_t>(error.number));
  encoder.put_string(shortened(error.context, kStatusTextBytesMax));
  return encoder.take();
}

Result<Error> decode_failed(ConstByteSpan body) {
  Decoder decoder(body);
  const auto kind = decoder.get<uint32_t>();
  Error error;
  error.kind = kind >= 1 && kind <= kKinds.size() ? kKinds[kind - 1] : ErrorKind::kIo;
  error.number = static_cast<int>(decoder.get<uint32_t>() & 0xfffU);
  error.context = decoder.get_string();
  return whole(decoder, kind > 0 && error.context.size() <= kStatusTextBytesMax, FrameType::kFailed,
               error);
}

}  // namespace ckpt
