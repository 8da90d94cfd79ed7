// SPDX-License-Identifier: Apache-2.0
#include "common/checkpoint_codec.h"

namespace ckpt {
namespace {

constexpr size_t kCheckpointReservedBytes = 20;

std::vector<AttachmentInfo> decode_attachments(Decoder& decoder, uint32_t count) {
  std::vector<AttachmentInfo> attachments(count <= kAttachmentsMax ? count : 0);
  for (AttachmentInfo& attachment : attachments) {
    attachment.name = decoder.get_string();
    attachment.size_bytes = decoder.get<uint64_t>();
    attachment.stored_bytes = decoder.get<uint64_t>();
    attachment.digest.bytes = decoder.get_array<16>();
  }
  return attachments;
}

}  // namespace

bool valid_checkpoint(const CheckpointInfo& checkpoint) {
  return checkpoint.id.number.value > 0 && checkpoint.parent.number < checkpoint.id.number &&
         !checkpoint.id.timeline.is_nil() && checkpoint.name.size() <= kCheckpointNameBytesMax &&
         checkpoint.message.size() <= kCheckpointMessageBytesMax &&
         valid_attachments(checkpoint.attachments);
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

void encode_base(Encoder& encoder, const BaseCheckpoint& base) {
  encode_checkpoint_id(encoder, base.id);
  encoder.put_array(base.digest.bytes);
}

BaseCheckpoint decode_base(Decoder& decoder) {
  BaseCheckpoint base;
  base.id = decode_checkpoint_id(decoder);
  base.digest.bytes = decoder.get_array<16>();
  return base;
}

void encode_checkpoint(Encoder& encoder, const CheckpointInfo& checkpoint) {
  encode_checkpoint_id(encoder, checkpoint.id);
  encode_checkpoint_id(encoder, checkpoint.parent);
  encoder.put_array(checkpoint.digest.bytes);
  encoder.put(static_cast<uint64_t>(checkpoint.time.count()));
  encoder.put(checkpoint.changed_bytes);
  encoder.put(checkpoint.shipped_bytes);
  encoder.put(static_cast<uint32_t>(checkpoint.attachments.size()));
  encoder.put_zeroes(kCheckpointReservedBytes);
  encoder.put_string(checkpoint.name);
  encoder.put_string(checkpoint.message);
  for (const AttachmentInfo& attachment : checkpoint.attachments) {
    encoder.put_string(attachment.name);
    encoder.put(attachment.size_bytes);
    encoder.put(attachment.stored_bytes);
    encoder.put_array(attachment.digest.bytes);
  }
}

Result<CheckpointInfo> decode_checkpoint(Decoder& decoder) {
  CheckpointInfo checkpoint;
  checkpoint.id = decode_checkpoint_id(decoder);
  checkpoint.parent = decode_checkpoint_id(decoder);
  checkpoint.digest.bytes = decoder.get_array<16>();
  checkpoint.time = WallTime(static_cast<int64_t>(decoder.get<uint64_t>()));
  checkpoint.changed_bytes = decoder.get<uint64_t>();
  checkpoint.shipped_bytes = decoder.get<uint64_t>();
  const auto attachments = decoder.get<uint32_t>();
  decoder.get_zeroes(kCheckpointReservedBytes);
  checkpoint.name = decoder.get_string();
  checkpoint.message = decoder.get_string();
  checkpoint.attachments = decode_attachments(decoder, attachments);
  if (!decoder.ok() || attachments > kAttachmentsMax || !valid_checkpoint(checkpoint)) {
    return fail(ErrorKind::kCorrupt, "checkpoint: a field is not valid");
  }
  return checkpoint;
}

}  // namespace ckpt
