// SPDX-License-Identifier: Apache-2.0
// The bodies of the frames that confirm a copy of a checkpoint, and tell of forks.
//
// Format: docs/wire-protocol.md, "Messages"
#pragma once

#include <vector>

#include "common/message.h"

namespace ckpt {

std::vector<std::byte> encode_copy(const CheckpointCopy& copy);
Result<CheckpointCopy> decode_copy(ConstByteSpan body);
std::vector<std::byte> encode_forks(const std::vector<CheckpointId>& forks);
Result<std::vector<CheckpointId>> decode_forks(ConstByteSpan body);

}  // namespace ckpt
