// SPDX-License-Identifier: Apache-2.0
// A frame as a peer of another version of the protocol would send it.
#pragma once

#include "common/checksum.h"
#include "common/frame.h"

namespace ckpt::test {

// Header and body, on a connection that has no number yet. The layout is the one that all versions
// have in common.
inline std::vector<std::byte> frame_of_version(uint16_t version, FrameType type, uint64_t request,
                                               const std::vector<std::byte>& body) {
  auto bytes = encode_frame_header(frame_of(type, request, 0, body));
  Encoder changed;
  changed.put(version);
  copy_bytes(changed.bytes(), ByteSpan(bytes).subspan(4));
  Encoder crc;
  crc.put(crc32c(ConstByteSpan(bytes).first(60)));
  copy_bytes(crc.bytes(), ByteSpan(bytes).subspan(60));
  bytes.insert(bytes.end(), body.begin(), body.end());
  return bytes;
}

}  // namespace ckpt::test
