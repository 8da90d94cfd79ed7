// SPDX-License-Identifier: Apache-2.0
#include "common/copy_message.h"

#include "common/checkpoint_codec.h"

namespace ckpt {
namespace {

constexpr size_t kCopyForkBytes = 24;

void put_forks(Encoder& encoder, const std::vector<CheckpointId>& forks) {
  encoder.put(static_cast<uint32_t>(forks.size()));
  encoder.put_zeroes(4);
  for (const CheckpointId& fork : forks) {
    encode_checkpoint_id(encoder, fork);
  }
}

Result<std::vector<CheckpointId>> take_forks(Decoder& decoder) {
  const auto count = decoder.get<uint32_t>();
  decoder.get_zeroes(4);
  if (!decoder.ok() || count > kForksMax || decoder.remaining() < count * kCopyForkBytes) {
    return fail(ErrorKind::kCorrupt, "forks: of another length than they say");
  }
  std::vector<CheckpointId> forks;
  for (uint32_t i = 0; i < count; ++i) {
    forks.push_back(decode_checkpoint_id(decoder));
    if (forks.back().timeline.is_nil() || forks.back().number.value == 0) {
      return fail(ErrorKind::kCorrupt, "forks: of no checkpoint");
    }
  }
  return forks;
}

}  // namespace

std::vector<std::byte> encode_copy(const CheckpointCopy& copy) {
  Encoder encoder;
  put_forks(encoder, copy.forks);
  encoder.put_bytes(encode_confirmation(copy.confirmation));
  return encoder.take();
}

Result<CheckpointCopy> decode_copy(ConstByteSpan body) {
  Decoder decoder(body);
  CheckpointCopy copy;
  CKPT_ASSIGN(copy.forks, take_forks(decoder));
  CKPT_ASSIGN(copy.confirmation, decode_confirmation(body.last(decoder.remaining())));
  return copy;
}

std::vector<std::byte> encode_forks(const std::vector<CheckpointId>& forks) {
  Encoder encoder;
  put_forks(encoder, forks);
  return encoder.take();
}

Result<std::vector<CheckpointId>> decode_forks(ConstByteSpan body) {
  Decoder decoder(body);
  CKPT_ASSIGN(auto forks, take_forks(decoder));
  return decoder.remaining() == 0
             ? Result<std::vector<CheckpointId>>(std::move(forks))
             : fail(ErrorKind::kCorrupt, "forks: of another length than they say");
}

}  // namespace ckpt
