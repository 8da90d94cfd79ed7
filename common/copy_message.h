// SPDX-License-Identifier: Apache-2.0
// The body of the frame that confirms a copy of a checkpoint.
//
// Format: docs/wire-protocol.md, "Messages"
#pragma once

#include <vector>

#include "common/message.h"

namespace ckpt {

std::vector<std::byte> encode_copy(const CheckpointCopy& copy);
Result<CheckpointCopy> decode_copy(ConstByteSpan body);

}  // namespace ckpt
