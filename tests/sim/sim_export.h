// SPDX-License-Identifier: Apache-2.0
// Where an export goes in the simulation: memory that takes its time, and sees whether each sector
// comes once.
#pragma once

#include <string>
#include <vector>

#include "common/store_link.h"
#include "tests/sim/random.h"
#include "tests/sim/scheduler.h"

namespace ckpt::sim {

class SimExport final : public ExportSink {
 public:
  SimExport(Scheduler& scheduler, SeededRandom random, uint64_t size_bytes);

  Result<> begin(const CheckpointInfo& checkpoint, uint64_t size_bytes) override;
  Result<> write(uint64_t offset, ConstByteSpan data) override;
  Result<> zero(ByteRange range) override;

  // What was wrong with how it came; empty: nothing, and it is whole.
  [[nodiscard]] std::string check_whole() const;
  [[nodiscard]] const CheckpointInfo& checkpoint() const { return checkpoint_; }
  [[nodiscard]] const std::vector<std::byte>& content() const { return content_; }

 private:
  // Whether these bytes may come now; they have come then.
  bool take(ByteRange range);
  void take_time();

  Scheduler& scheduler_;
  SeededRandom random_;
  bool slow_;  // so that a checkpoint may have to wait for it, until it is ended
  bool begun_ = false;
  CheckpointInfo checkpoint_;
  std::vector<std::byte> content_;
  std::vector<bool> taken_;  // a sector each
  std::string wrong_;        // the first thing
};

}  // namespace ckpt::sim
