// SPDX-License-Identifier: Apache-2.0
#include "common/checkpoint_codec.h"

namespace ckpt {
namespace {

constexpr size_t kCheckpointReservedBytes = 24;

}  // namespace

bool valid_checkpoint(const CheckpointInfo& checkpoint) {
  return checkpoint.id.number.value > 0 && checkpoint.parent.number < checkpoint.id.number &&
         !checkpoint.id.timeline.is_nil() && checkpoint.name.size() <= kCheckpointNameBytesMax &&
         checkpoint.message.size() <= kCheckpointMessageBytesMax;
}

void encode_checkpoint_id(Encoder& encoder, const CheckpointId& id) {
  encoder.put_array(id.timeline.bytes);
  encoder.put(id.number.value);
}

CheckpointId decode_checkpoint_id(Decoder& decoder) {
  CheckpointId id;
  id.timeline.bytes = decoder.get_array<16>();
  id.number.value = decoder.get<uint64_t>();
  return id;
}

void encode_checkpoint(Encoder& encoder, const CheckpointInfo& checkpoint) {
  encode_checkpoint_id(encoder, checkpoint.id);
  encode_checkpoint_id(encoder, checkpoint.parent);
  encoder.put_array(checkpoint.digest.bytes);
  encoder.put(static_cast<uint64_t>(checkpoint.time.count()));
  encoder.put(checkpoint.changed_bytes);
  encoder.put(checkpoint.shipped_bytes);
  encoder.put_zeroes(kCheckpointReservedBytes);
  encoder.put_string(checkpoint.name);
  encoder.put_string(checkpoint.message);
}

Result<CheckpointInfo> decode_checkpoint(Decoder& decoder) {
  CheckpointInfo checkpoint;
  checkpoint.id = decode_checkpoint_id(decoder);
  checkpoint.parent = decode_checkpoint_id(decoder);
  checkpoint.digest.bytes = decoder.get_array<16>();
  checkpoint.time = WallTime(static_cast<int64_t>(decoder.get<uint64_t>()));
  checkpoint.changed_bytes = decoder.get<uint64_t>();
  checkpoint.shipped_bytes = decoder.get<uint64_t>();
  decoder.get_zeroes(kCheckpointReservedBytes);
  checkpoint.name = decoder.get_string();
  checkpoint.message = decoder.get_string();
  if (!decoder.ok() || !valid_checkpoint(checkpoint)) {
    return fail(ErrorKind::kCorrupt, "checkpoint: a field is not valid");
  }
  return checkpoint;
}

}  // namespace ckpt
