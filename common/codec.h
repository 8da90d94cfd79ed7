// SPDX-License-Identifier: Apache-2.0
// zstd, as batches and attachments use it: one frame that says how much it holds.
#pragma once

#include <optional>

#include "common/bytes.h"
#include "common/result.h"

namespace ckpt {

enum class Codec : uint8_t { kNone = 0, kZstd = 1 };

struct Compression {
  Codec codec = Codec::kZstd;
  int level = 1;
};

// Nothing if that did not save anything. Valid until the thread compresses again.
std::optional<ConstByteSpan> compress(ConstByteSpan data, int level);
// Whether compressing pays, judged by a few samples: incompressible data would cost a core for
// nothing.
bool shrinks(ConstByteSpan data, int level);
// Whether so much is saved that it pays: at least an eighth.
bool is_worth(size_t packed_bytes, size_t bytes);

// The frame must say that it holds just so many bytes, and be the only one: before memory is taken
// for them. kCorrupt.
Result<> check_frame(ConstByteSpan frame, uint64_t data_bytes);
// Fills data, which is of the size that the frame says. kCorrupt.
Result<> decompress(ConstByteSpan frame, ByteSpan data);

}  // namespace ckpt
