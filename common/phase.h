// SPDX-License-Identifier: Apache-2.0
// What this process, a server or backupd, is doing at this instant, for a test that kills it in the
// middle: four counters in a page of the file that $CKPT_PHASE_FILE names, each process its own.
// Without that variable nothing happens.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>

namespace ckpt {

enum class Phase : uint32_t { kShipping = 0, kConfirming = 1, kApplying = 2, kRollingBack = 3 };
inline constexpr size_t kPhaseCount = 4;

// Maps the file, once, at start, in none of the phases.
void open_phase_file();

// Where the counters are; null: nobody looks.
inline std::atomic<uint32_t>* phase_counters = nullptr;

// The phase is on as long as this lives. Counted, not flagged: threads may share one.
class PhaseScope {
 public:
  explicit PhaseScope(Phase phase)
      : counter_(phase_counters != nullptr ? phase_counters + static_cast<uint32_t>(phase)
                                           : nullptr) {
    if (counter_ != nullptr) {
      ++*counter_;
    }
  }
  ~PhaseScope() {
    if (counter_ != nullptr) {
      --*counter_;
    }
  }
  PhaseScope(const PhaseScope&) = delete;
  PhaseScope& operator=(const PhaseScope&) = delete;

 private:
  std::atomic<uint32_t>* counter_;
};

}  // namespace ckpt
