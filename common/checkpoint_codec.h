// SPDX-License-Identifier: Apache-2.0
// A checkpoint's description as it stands in confirm records, in `volume`, and on the wire.
//
// Format: docs/store-format.md, "A checkpoint"
#pragma once

#include "common/bytes.h"
#include "common/store_link.h"

namespace ckpt {

inline constexpr size_t kCheckpointNameBytesMax = 255;
inline constexpr size_t kCheckpointMessageBytesMax = 4096;
// Of one with the longest texts, and all attachments with the longest names.
inline constexpr size_t kCheckpointBytesMax = 116 + 2 + kCheckpointNameBytesMax + 2 +
                                              kCheckpointMessageBytesMax +
                                              kAttachmentsMax * (2 + kAttachmentNameBytesMax + 32);

// Whether its fields are within the limits: number from 1, the parent's smaller, short name and
// message.
bool valid_checkpoint(const CheckpointInfo& checkpoint);

void encode_checkpoint_id(Encoder& encoder, const CheckpointId& id);
CheckpointId decode_checkpoint_id(Decoder& decoder);
void encode_base(Encoder& encoder, const BaseCheckpoint& base);
BaseCheckpoint decode_base(Decoder& decoder);

// The checkpoint must be valid.
void encode_checkpoint(Encoder& encoder, const CheckpointInfo& checkpoint);
// Takes one off the front; kCorrupt if it is not whole or not valid.
Result<CheckpointInfo> decode_checkpoint(Decoder& decoder);

}  // namespace ckpt
