// SPDX-License-Identifier: Apache-2.0
// What a store's status says of relays, at the end of its encoding.
//
// Format: docs/wire-protocol.md, "Messages"
#pragma once

#include <vector>

#include "common/bytes.h"
#include "common/store_link.h"

namespace ckpt {

void put_relays(Encoder& encoder, const std::vector<RelayState>& relays);
// So many. kCorrupt.
Result<std::vector<RelayState>> get_relays(Decoder& decoder, uint64_t count);

}  // namespace ckpt
