// SPDX-License-Identifier: Apache-2.0
#include "common/stale_message.h"

#include "common/store_link.h"
#include "common/whole_body.h"

namespace ckpt {

std::vector<std::byte> encode_stale(uint64_t from) {
  Encoder encoder;
  encoder.put(from);
  return encoder.take();
}

Result<uint64_t> decode_stale(ConstByteSpan body) {
  Decoder decoder(body);
  const auto from = decoder.get<uint64_t>();
  return whole(decoder, true, FrameType::kStale, from);
}

std::vector<std::byte> encode_stale_list(std::span<const BlockRange> runs) {
  Encoder encoder;
  encoder.put(static_cast<uint32_t>(runs.size()));
  encoder.put_zeroes(4);
  for (const BlockRange& run : runs) {
    encoder.put(run.first);
    encoder.put(run.count());
  }
  return encoder.take();
}

Result<std::vector<BlockRange>> decode_stale_list(ConstByteSpan body) {
  Decoder decoder(body);
  const auto count = decoder.get<uint32_t>();
  decoder.get_zeroes(4);
  bool valid = count <= kStaleMax && decoder.remaining() == count * uint64_t{16};
  std::vector<BlockRange> runs;
  for (uint64_t after = 0; valid && runs.size() < count; after = runs.back().end) {
    const auto first = decoder.get<uint64_t>();
    const auto length = decoder.get<uint64_t>();
    constexpr uint64_t kBlocksMax = kDiskBytesMax / kBlockBytes;
    valid = first >= after && length > 0 && first < kBlocksMax && length <= kBlocksMax - first;
    runs.push_back({first, first + length});
  }
  return whole(decoder, valid, FrameType::kStaleList, runs);
}

}  // namespace ckpt
