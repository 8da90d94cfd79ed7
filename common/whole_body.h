// SPDX-License-Identifier: Apache-2.0
// How decoders of frames' bodies end.
#pragma once

#include <string>

#include "common/bytes.h"
#include "common/frame.h"

namespace ckpt {

// What a decoder found, if it found a whole body and nothing else.
template <typename T>
Result<T> whole(const Decoder& decoder, bool valid, FrameType type, T found) {
  if (!decoder.ok() || decoder.remaining() != 0 || !valid) {
    return fail(ErrorKind::kCorrupt, std::string(frame_name(type)) + ": a field is not valid");
  }
  return found;
}

}  // namespace ckpt
