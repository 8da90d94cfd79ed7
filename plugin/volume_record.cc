// SPDX-License-Identifier: Apache-2.0
#include "plugin/volume_record.h"

#include "backupd/store/store_record.h"
#include "common/checkpoint_codec.h"
#include "plugin/lost_record.h"

namespace ckpt {
namespace {

constexpr char kRecordName[] = "volume";
constexpr uint16_t kRecordVersion = 1;

enum Flag : uint32_t {
  kClean = 1,
  kEverything = 2,
  kSuspect = 4,
  kFenced = 8,
  kHasLast = 16,
  kHasIntent = 32,
  kHasRollback = 64,
  kRollbackFences = 128,
  kHadClients = 256,
  kSuperseded = 512,
  kUnplaced = 1024,
  kGivingUp = 2048,
  kAllFlags = 4095,
};

uint32_t flags_of(const VolumeRecord& record) {
  uint32_t flags = 0;
  flags |= record.clean ? kClean : 0U;
  flags |= record.everything ? kEverything : 0U;
  flags |= record.suspect ? kSuspect : 0U;
  flags |= record.fenced ? kFenced : 0U;
  flags |= record.had_clients ? kHadClients : 0U;
  flags |= record.superseded ? kSuperseded : 0U;
  flags |= record.unplaced ? kUnplaced : 0U;
  flags |= record.giving_up ? kGivingUp : 0U;
  flags |= record.last ? kHasLast : 0U;
  flags |= record.intent ? kHasIntent : 0U;
  flags |= record.rollback ? kHasRollback : 0U;
  flags |= record.rollback && record.rollback->fence ? kRollbackFences : 0U;
  return flags;
}

void put_stamp(Encoder& encoder, const FileStamp& stamp) {
  encoder.put(stamp.device);
  encoder.put(stamp.inode);
  encoder.put(static_cast<uint64_t>(stamp.birth.count()));
  encoder.put(stamp.size_bytes);
  encoder.put(static_cast<uint64_t>(stamp.modified.count()));
  encoder.put(static_cast<uint64_t>(stamp.changed.count()));
}

WallTime get_time(Decoder& decoder) {
  return WallTime(static_cast<int64_t>(decoder.get<uint64_t>()));
}

FileStamp get_stamp(Decoder& decoder) {
  FileStamp stamp;
  stamp.device = decoder.get<uint64_t>();
  stamp.inode = decoder.get<uint64_t>();
  stamp.birth = get_time(decoder);
  stamp.size_bytes = decoder.get<uint64_t>();
  stamp.modified = get_time(decoder);
  stamp.changed = get_time(decoder);
  return stamp;
}

Result<std::optional<CheckpointInfo>> get_checkpoint(Decoder& decoder, bool present) {
  if (!present) {
    return std::optional<CheckpointInfo>();
  }
  CKPT_ASSIGN(CheckpointInfo checkpoint, decode_checkpoint(decoder));
  return std::optional(std::move(checkpoint));
}

// Of a damaged one, with the way out.
Unexpected cannot_open(Error error, const std::string& state) {
  if (error.kind == ErrorKind::kCorrupt) {
    error.context +=
        ": the image is as it was. If the back-up is there (or where backup=embedded:DIR put "
        "it), " +
        advice_on_lost_record(state + "/store", state);
  }
  return Unexpected(std::move(error));
}

void put_rollback(Encoder& encoder, const RollbackTarget& rollback) {
  encode_checkpoint_id(encoder, rollback.checkpoint);
  encoder.put_array(rollback.to.bytes);
}

RollbackTarget get_rollback(Decoder& decoder, bool fence) {
  RollbackTarget rollback;
  rollback.checkpoint = decode_checkpoint_id(decoder);
  rollback.to.bytes = decoder.get_array<16>();
  rollback.fence = fence;
  return rollback;
}

Result<> get_forks(Decoder& decoder, VolumeRecord& record) {
  const auto count = decoder.get<uint32_t>();
  if (count > kForksMax) {
    return fail(ErrorKind::kCorrupt, "volume: more forks than there can be");
  }
  for (uint32_t i = 0; i < count; ++i) {
    record.forks.push_back(decode_checkpoint_id(decoder));
  }
  return {};
}

}  // namespace

std::vector<std::byte> encode_volume_record(const VolumeRecord& record) {
  Encoder encoder;
  encoder.put(kRecordVersion);
  encoder.put(uint16_t{0});
  encoder.put(flags_of(record));
  encoder.put_array(record.volume.bytes);
  encoder.put(record.size_bytes);
  encoder.put(record.region_bytes);
  encoder.put_array(record.timeline.bytes);
  encoder.put(record.highest.value);
  encoder.put(record.accepted);
  encoder.put(record.offered);
  encoder.put(record.nonce);
  encoder.put_array(record.saved_map.bytes);
  put_stamp(encoder, record.image);
  put_stamp(encoder, record.self);
  encoder.put_string(record.boot_id);
  encoder.put_string(record.maps_name);
  encoder.put_string(record.store_place);
  encoder.put(static_cast<uint32_t>(record.forks.size()));
  for (const CheckpointId& fork : record.forks) {
    encode_checkpoint_id(encoder, fork);
  }
  for (const auto& checkpoint : {record.last, record.intent}) {
    if (checkpoint) {
      encode_checkpoint(encoder, *checkpoint);
    }
  }
  if (record.rollback) {
    put_rollback(encoder, *record.rollback);
  }
  return encoder.take();
}

Result<VolumeRecord> decode_volume_record(ConstByteSpan payload) {
  Decoder decoder(payload);
  VolumeRecord record;
  const auto version = decoder.get<uint16_t>();
  const auto features = decoder.get<uint16_t>();
  if (decoder.ok() && (version != kRecordVersion || features != 0)) {
    return fail(ErrorKind::kInvalid, "volume: written by a newer version of ckpt");
  }
  const auto flags = decoder.get<uint32_t>();
  record.clean = (flags & kClean) != 0;
  record.everything = (flags & kEverything) != 0;
  record.suspect = (flags & kSuspect) != 0;
  record.fenced = (flags & kFenced) != 0;
  record.had_clients = (flags & kHadClients) != 0;
  record.superseded = (flags & kSuperseded) != 0;
  record.unplaced = (flags & kUnplaced) != 0;
  record.giving_up = (flags & kGivingUp) != 0;
  record.volume.bytes = decoder.get_array<16>();
  record.size_bytes = decoder.get<uint64_t>();
  record.region_bytes = decoder.get<uint64_t>();
  record.timeline.bytes = decoder.get_array<16>();
  record.highest.value = decoder.get<uint64_t>();
  record.accepted = decoder.get<uint64_t>();
  record.offered = decoder.get<uint64_t>();
  record.nonce = decoder.get<uint64_t>();
  record.saved_map.bytes = decoder.get_array<16>();
  record.image = get_stamp(decoder);
  record.self = get_stamp(decoder);
  record.boot_id = decoder.get_string();
  record.maps_name = decoder.get_string();
  record.store_place = decoder.get_string();
  CKPT_TRY(get_forks(decoder, record));
  CKPT_ASSIGN(record.last, get_checkpoint(decoder, (flags & kHasLast) != 0));
  CKPT_ASSIGN(record.intent, get_checkpoint(decoder, (flags & kHasIntent) != 0));
  if ((flags & kHasRollback) != 0) {
    record.rollback = get_rollback(decoder, (flags & kRollbackFences) != 0);
  }
  const bool divided = record.region_bytes > 0 && record.region_bytes % (64 * kBlockBytes) == 0;
  if (!decoder.ok() || decoder.remaining() != 0 || flags > kAllFlags || !divided) {
    return fail(ErrorKind::kCorrupt, "volume: a field is not valid");
  }
  return record;
}

Result<std::unique_ptr<VolumeRecordFile>> VolumeRecordFile::create(Directory& directory,
                                                                   VolumeRecord record,
                                                                   Random& random) {
  record.nonce = random.next();
  CKPT_ASSIGN(Slots slots, Slots::create(directory, kRecordName, encode_volume_record(record)));
  return std::unique_ptr<VolumeRecordFile>(
      new VolumeRecordFile(std::move(slots), std::move(record), random));
}

Result<std::unique_ptr<VolumeRecordFile>> VolumeRecordFile::open(Directory& directory,
                                                                 Random& random) {
  auto slots = Slots::open(directory, kRecordName);
  if (!slots) {
    return cannot_open(slots.error(), directory.path());
  }
  auto record = decode_volume_record(slots->payload());
  if (!record) {
    return cannot_open(within(directory.path(), record.error()).error(), directory.path());
  }
  return std::unique_ptr<VolumeRecordFile>(
      new VolumeRecordFile(std::move(*slots), std::move(*record), random));
}

std::string superseded_text() {
  return "the back-up of this image was promoted, and is the disk now: what was written here since "
         "then is in no checkpoint. `ckpt-tool rejoin` makes this one the back-up of that, "
         "`ckpt-tool forget` a plain image";
}

VolumeRecord VolumeRecordFile::get() {
  const MutexLock lock(mutex_);
  return record_;
}

Result<> VolumeRecordFile::change(const std::function<void(VolumeRecord&)>& edit) {
  const MutexLock writing(writing_);
  VolumeRecord record = get();
  edit(record);
  record.nonce = random_.next();
  if (record.forks.size() > kForksMax) {
    record.forks.erase(record.forks.begin());
  }
  if (observer_.prepare) {
    observer_.prepare(record.nonce);
  }
  CKPT_TRY(slots_.write(encode_volume_record(record)));
  if (observer_.commit) {
    observer_.commit(record.nonce);
  }
  const MutexLock lock(mutex_);
  record_ = std::move(record);
  return {};
}

}  // namespace ckpt
