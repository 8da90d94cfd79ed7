// SPDX-License-Identifier: Apache-2.0
// The bodies of frames about the blocks of an image that rejoined which are not as in its bases.
//
// Format: docs/wire-protocol.md, "Messages"
#pragma once

#include <span>
#include <vector>

#include "common/frame.h"

namespace ckpt {

// From that block on.
std::vector<std::byte> encode_stale(uint64_t from);
Result<uint64_t> decode_stale(ConstByteSpan body);
// At most kStaleMax runs, ascending, none of them empty.
std::vector<std::byte> encode_stale_list(std::span<const BlockRange> runs);
Result<std::vector<BlockRange>> decode_stale_list(ConstByteSpan body);

}  // namespace ckpt
