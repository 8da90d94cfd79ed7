// SPDX-License-Identifier: Apache-2.0
#include "backupd/store/store_record.h"

#include <algorithm>

#include "common/checkpoint_codec.h"
#include "common/slots.h"

namespace ckpt {
namespace {

constexpr std::string_view kStoreRecordMagic = "CKPTSTOR";
constexpr uint16_t kStoreRecordVersion = 1;
constexpr size_t kRecordReservedBytes = 64;
constexpr size_t kForkBytes = 24;
constexpr size_t kBaseBytes = 40;
constexpr uint64_t kPromotedFeature = 1;
constexpr uint64_t kRejoinedFeature = 2;
constexpr uint64_t kCopiesFeature = 4;
// Fixed fields, the longest checkpoint, and all forks.
static_assert(512 + kCheckpointBytesMax + kBasesMax * kBaseBytes + kForksMax * kForkBytes <=
              kSlotPayloadBytesMax);

// The features that a reader must know.
Result<uint64_t> decode_features(Decoder& decoder) {
  const bool ours = std::ranges::equal(decoder.get_bytes(kStoreRecordMagic.size()),
                                       as_bytes_of(kStoreRecordMagic));
  const auto version = decoder.get<uint16_t>();
  decoder.get_zeroes(6);
  const auto required = decoder.get<uint64_t>();
  decoder.get<uint64_t>();  // features that a reader may ignore
  if (!ours || !decoder.ok()) {
    return fail(ErrorKind::kCorrupt, "store record: not one");
  }
  if (version != kStoreRecordVersion ||
      (required & ~(kPromotedFeature | kRejoinedFeature | kCopiesFeature)) != 0) {
    return fail(ErrorKind::kInvalid,
                "store record: written by a newer version of ckpt; use one as new");
  }
  return required;
}

Result<> decode_last(Decoder& decoder, StoreRecord& record) {
  const auto count = decoder.get<uint32_t>();
  if (count == 0) {
    return {};
  }
  if (count > 1) {
    return fail(ErrorKind::kCorrupt, "store record: more than one last checkpoint");
  }
  CKPT_ASSIGN(record.last, decode_checkpoint(decoder));
  return {};
}

Result<> decode_rejoined(Decoder& decoder, StoreRecord& record) {
  RejoinedImage& rejoined = record.rejoined.emplace();
  rejoined.stale.bytes = decoder.get_array<16>();
  const auto count = decoder.get<uint32_t>();
  if (count > kBasesMax) {
    return fail(ErrorKind::kCorrupt, "store record: more bases than there can be");
  }
  for (uint32_t i = 0; i < count; ++i) {
    rejoined.bases.push_back(decode_base(decoder));
  }
  return {};
}

void encode_rejoined(Encoder& encoder, const RejoinedImage& rejoined) {
  encoder.put_array(rejoined.stale.bytes);
  encoder.put(static_cast<uint32_t>(rejoined.bases.size()));
  for (const BaseCheckpoint& base : rejoined.bases) {
    encode_base(encoder, base);
  }
}

uint64_t features_of(const StoreRecord& record) {
  return (record.promoted ? kPromotedFeature : 0) | (record.rejoined ? kRejoinedFeature : 0) |
         (record.has_copies ? kCopiesFeature : 0);
}

Result<> decode_record_forks(Decoder& decoder, StoreRecord& record) {
  const auto count = decoder.get<uint32_t>();
  if (!decoder.ok() || count > kForksMax || decoder.remaining() != count * kForkBytes) {
    return fail(ErrorKind::kCorrupt, "store record: not of the declared length");
  }
  for (uint32_t i = 0; i < count; ++i) {
    record.forks.push_back(decode_checkpoint_id(decoder));
  }
  return {};
}

bool consistent(const StoreRecord& record) {
  const Epoch last = record.last ? record.last->id.number : Epoch{};
  const bool is_applied = record.applied == last;
  return (record.last || !record.promoted) && !(record.last && record.rejoined) &&
         record.applied <= last && is_applied == record.confirmed.is_none() &&
         (is_applied || record.confirmed.segment == last);
}

}  // namespace

void StoreRecord::fork_to(const Uuid& timeline) {
  CKPT_CHECK(last.has_value());
  forks.push_back(last->id);
  if (forks.size() > kForksMax) {
    forks.erase(forks.begin());
  }
  last->id.timeline = timeline;
}

bool StoreRecord::has_timeline(const Uuid& timeline) const {
  return (last && last->id.timeline == timeline) ||
         std::ranges::find(forks, timeline, &CheckpointId::timeline) != forks.end();
}

bool StoreRecord::is_last(const CheckpointId& id) const {
  if (!last) {
    return id.number.value == 0;
  }
  return id.number == last->id.number &&
         (id.timeline == last->id.timeline || std::ranges::find(forks, id) != forks.end());
}

std::vector<std::byte> encode_store_record(const StoreRecord& record) {
  Encoder encoder;
  encoder.put_bytes(as_bytes_of(kStoreRecordMagic));
  encoder.put(kStoreRecordVersion);
  encoder.put_zeroes(6);
  encoder.put(features_of(record));
  encoder.put(uint64_t{0});  // features that it may ignore
  encoder.put_array(record.volume.bytes);
  encoder.put(record.size_bytes);
  encoder.put(record.incarnation);
  encoder.put(record.applied.value);
  encode_position(encoder, record.confirmed);
  encoder.put_zeroes(kRecordReservedBytes);
  encoder.put(uint32_t{record.last ? 1U : 0U});
  if (record.last) {
    encode_checkpoint(encoder, *record.last);
  }
  if (record.rejoined) {
    encode_rejoined(encoder, *record.rejoined);
  }
  encoder.put(static_cast<uint32_t>(record.forks.size()));
  for (const CheckpointId& fork : record.forks) {
    encode_checkpoint_id(encoder, fork);
  }
  return encoder.take();
}

Result<StoreRecord> decode_store_record(ConstByteSpan bytes) {
  Decoder decoder(bytes);
  CKPT_ASSIGN(const uint64_t features, decode_features(decoder));
  StoreRecord record;
  record.promoted = (features & kPromotedFeature) != 0;
  record.has_copies = (features & kCopiesFeature) != 0;
  record.volume.bytes = decoder.get_array<16>();
  record.size_bytes = decoder.get<uint64_t>();
  record.incarnation = decoder.get<uint64_t>();
  record.applied.value = decoder.get<uint64_t>();
  record.confirmed = decode_position(decoder);
  decoder.get_zeroes(kRecordReservedBytes);
  CKPT_TRY(decode_last(decoder, record));
  if ((features & kRejoinedFeature) != 0) {
    CKPT_TRY(decode_rejoined(decoder, record));
  }
  CKPT_TRY(decode_record_forks(decoder, record));
  if (!decoder.ok() || !consistent(record)) {
    return fail(ErrorKind::kCorrupt, "store record: a field is not valid");
  }
  return record;
}

}  // namespace ckpt
