// SPDX-License-Identifier: Apache-2.0
#include "common/codec.h"

#include <zstd.h>

#include <memory>

namespace ckpt {
namespace {

constexpr size_t kSampleBytes = 16384;
constexpr size_t kSampleCount = 4;

struct FreeCompressor {
  void operator()(ZSTD_CCtx* context) const { ZSTD_freeCCtx(context); }
};
struct FreeDecompressor {
  void operator()(ZSTD_DCtx* context) const { ZSTD_freeDCtx(context); }
};

// Contexts are large and costly to make: one a thread.
ZSTD_CCtx* compressor() {
  thread_local const std::unique_ptr<ZSTD_CCtx, FreeCompressor> context(ZSTD_createCCtx());
  return context.get();
}

ZSTD_DCtx* decompressor() {
  thread_local const std::unique_ptr<ZSTD_DCtx, FreeDecompressor> context(ZSTD_createDCtx());
  return context.get();
}

// Memory to compress into, kept by its thread and never cleared: it is as large as a batch.
ByteSpan scratch(size_t bytes) {
  struct Memory {
    std::unique_ptr<std::byte[]> memory;
    size_t bytes = 0;
  };
  thread_local Memory kept;
  if (kept.bytes < bytes) {
    kept.memory.reset(new std::byte[bytes]);
    kept.bytes = bytes;
  }
  return {kept.memory.get(), bytes};
}

}  // namespace

std::optional<ConstByteSpan> compress(ConstByteSpan data, int level) {
  const ByteSpan out = scratch(ZSTD_compressBound(data.size()));
  const size_t written =
      ZSTD_compressCCtx(compressor(), out.data(), out.size(), data.data(), data.size(), level);
  const bool smaller = ZSTD_isError(written) == 0 && written < data.size();
  return smaller ? std::optional(ConstByteSpan(out.first(written))) : std::nullopt;
}

bool is_worth(size_t packed_bytes, size_t bytes) { return packed_bytes < bytes / 8 * 7; }

bool shrinks(ConstByteSpan data, int level) {
  if (data.size() <= kSampleBytes * kSampleCount) {
    return true;
  }
  size_t sampled = 0;
  for (size_t i = 0; i < kSampleCount; ++i) {
    const size_t at = (data.size() - kSampleBytes) / (kSampleCount - 1) * i;
    const auto packed = compress(data.subspan(at, kSampleBytes), level);
    sampled += packed ? packed->size() : kSampleBytes;
  }
  return is_worth(sampled, kSampleBytes * kSampleCount);
}

Result<> check_frame(ConstByteSpan frame, uint64_t data_bytes) {
  const bool one_frame = ZSTD_findFrameCompressedSize(frame.data(), frame.size()) == frame.size();
  if (!one_frame || ZSTD_getFrameContentSize(frame.data(), frame.size()) != data_bytes) {
    return fail(ErrorKind::kCorrupt, "not one zstd frame of the declared size");
  }
  return {};
}

Result<> decompress(ConstByteSpan frame, ByteSpan data) {
  const size_t got =
      ZSTD_decompressDCtx(decompressor(), data.data(), data.size(), frame.data(), frame.size());
  if (got != data.size()) {
    return fail(ErrorKind::kCorrupt, "the zstd frame is damaged");
  }
  return {};
}

}  // namespace ckpt
