// SPDX-License-Identifier: Apache-2.0
#include "plugin/control_export.h"

#include "common/clock.h"

namespace ckpt {

Result<> ControlExport::begin(const CheckpointInfo& checkpoint, uint64_t size_bytes) {
  return send(encode_export({checkpoint, size_bytes}), {});
}

Result<> ControlExport::write(uint64_t offset, ConstByteSpan data) {
  return send(encode_extent({{offset, data.size()}, false}), data);
}

Result<> ControlExport::zero(ByteRange range) { return send(encode_extent({range, true}), {}); }

// Handing over to a socket with room takes no time worth counting.
Result<> ControlExport::send(const std::string& line, ConstByteSpan data) {
  const SteadyTime begin = system_clock().steady();
  Result<> sent = connection_.send_line(line, timeout_);
  if (sent) {
    sent = connection_.send_bytes(data, timeout_);
  }
  waited_ns_ += (system_clock().steady() - begin).count();
  return sent;
}

}  // namespace ckpt
