// SPDX-License-Identifier: Apache-2.0
// An export whose destination is at the other end of a control connection.
#pragma once

#include "plugin/control_codec.h"
#include "plugin/control_socket.h"

namespace ckpt {

// Failure: kTimeout where the other side takes nothing for so long.
// Format:  docs/control-protocol.md
class ControlExport : public ExportSink {
 public:
  // The connection outlives it. timeout: for each extent.
  ControlExport(ControlConnection& connection, ControlConnection::Timeout timeout)
      : connection_(connection), timeout_(timeout) {}

  Result<> begin(const CheckpointInfo& checkpoint, uint64_t size_bytes) override;
  Result<> write(uint64_t offset, ConstByteSpan data) override;
  Result<> zero(ByteRange range) override;
  // Whether a send failed: what was said is cut off, and nothing may follow it.
  [[nodiscard]] bool is_broken() const { return is_broken_; }

 private:
  Result<> send(const std::string& line, ConstByteSpan data);

  ControlConnection& connection_;
  const ControlConnection::Timeout timeout_;
  bool is_broken_ = false;
};

}  // namespace ckpt
