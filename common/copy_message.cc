// SPDX-License-Identifier: Apache-2.0
#include "common/copy_message.h"

#include "common/checkpoint_codec.h"

namespace ckpt {
namespace {

constexpr size_t kCopyForkBytes = 24;

}  // namespace

std::vector<std::byte> encode_copy(const CheckpointCopy& copy) {
  Encoder encoder;
  encoder.put(static_cast<uint32_t>(copy.forks.size()));
  encoder.put_zeroes(4);
  for (const CheckpointId& fork : copy.forks) {
    encode_checkpoint_id(encoder, fork);
  }
  encoder.put_bytes(encode_confirmation(copy.confirmation));
  return encoder.take();
}

Result<CheckpointCopy> decode_copy(ConstByteSpan body) {
  Decoder decoder(body);
  const auto count = decoder.get<uint32_t>();
  decoder.get_zeroes(4);
  if (!decoder.ok() || count > kForksMax || decoder.remaining() < count * kCopyForkBytes) {
    return fail(ErrorKind::kCorrupt, "confirm copy: of another length than it says");
  }
  CheckpointCopy copy;
  for (uint32_t i = 0; i < count; ++i) {
    copy.forks.push_back(decode_checkpoint_id(decoder));
    if (copy.forks.back().timeline.is_nil() || copy.forks.back().number.value == 0) {
      return fail(ErrorKind::kCorrupt, "confirm copy: a fork of no checkpoint");
    }
  }
  CKPT_ASSIGN(copy.confirmation, decode_confirmation(body.last(decoder.remaining())));
  return copy;
}

}  // namespace ckpt
