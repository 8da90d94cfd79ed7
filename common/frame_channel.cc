// SPDX-License-Identifier: Apache-2.0
#include "common/frame_channel.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <new>

namespace ckpt {
namespace {

// Memory for a body is taken as it comes, not because a header announces it.
constexpr size_t kBodyStepBytes = size_t{1} << 20U;

}  // namespace

Result<> FrameChannel::send(FrameType type, uint64_t request, ConstByteSpan body) {
  const auto header = encode_frame_header(frame_of(type, request, connection_, body));
  const MutexLock lock(mutex_);
  return stream_.write(header, body);
}

bool FrameChannel::send_if_free(FrameType type, uint64_t request) {
  const auto header = encode_frame_header(frame_of(type, request, connection_, {}));
  if (!mutex_.try_lock()) {
    return false;
  }
  const bool sent = stream_.can_write() && stream_.write(header, {}).has_value();
  mutex_.unlock();
  return sent;
}

Result<> FrameChannel::receive(ReceivedFrame& frame) {
  CKPT_TRY(receive_header(frame));
  return receive_body(frame);
}

Result<> FrameChannel::receive_header(ReceivedFrame& frame) {
  std::array<std::byte, kFrameHeaderBytes> header{};
  CKPT_TRY(stream_.read(header));
  CKPT_ASSIGN(frame.header, decode_frame_header(header));
  if (frame.header.connection != connection_) {
    return fail(ErrorKind::kCorrupt,
                std::string(frame_name(frame.header.type)) + ": a frame of another connection");
  }
  return {};
}

Result<> FrameChannel::receive_body(ReceivedFrame& frame) {
  frame.body.clear();
  while (frame.body.size() < frame.header.body_bytes) {
    const size_t have = frame.body.size();
    const size_t part = std::min<size_t>(kBodyStepBytes, frame.header.body_bytes - have);
    try {
      frame.body.resize(have + part);
    } catch (const std::bad_alloc&) {
      return fail(ErrorKind::kBusy, "no memory for what comes", ENOMEM);
    }
    CKPT_TRY(stream_.read(ByteSpan(frame.body).subspan(have)));
  }
  return check_body(frame.header, frame.body);
}

}  // namespace ckpt
