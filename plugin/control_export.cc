// SPDX-License-Identifier: Apache-2.0
#include "plugin/control_export.h"

namespace ckpt {

Result<> ControlExport::begin(const CheckpointInfo& checkpoint, uint64_t size_bytes) {
  return send(encode_export({checkpoint, size_bytes}), {});
}

Result<> ControlExport::write(uint64_t offset, ConstByteSpan data) {
  return send(encode_extent({{offset, data.size()}, false}), data);
}

Result<> ControlExport::zero(ByteRange range) { return send(encode_extent({range, true}), {}); }

Result<> ControlExport::send(const std::string& line, ConstByteSpan data) {
  Result<> sent = connection_.send_line(line, timeout_);
  if (sent) {
    sent = connection_.send_bytes(data, timeout_);
  }
  is_broken_ = is_broken_ || !sent;
  return sent;
}

}  // namespace ckpt
