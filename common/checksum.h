// SPDX-License-Identifier: Apache-2.0
// CRC32C over headers, XXH3-128 over payloads, and the test for all-zero data.
#pragma once

#include "common/block.h"
#include "common/bytes.h"

namespace ckpt {

// CRC32C (Castagnoli), as in RFC 3720 appendix B.4: of "123456789" it is 0xe3069283.
uint32_t crc32c(ConstByteSpan bytes);

// XXH3-128 with seed 0, in canonical (big-endian) form.
Digest digest_of(ConstByteSpan bytes);
// With a seed: whoever chose the bytes, and does not know it, cannot have chosen others with the
// same digest.
Digest digest_of(ConstByteSpan bytes, uint64_t seed);

// Whether every byte is zero. Stops at the first that is not.
bool is_zero(ConstByteSpan bytes);

}  // namespace ckpt
