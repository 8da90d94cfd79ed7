// SPDX-License-Identifier: Apache-2.0
// The oracle's judgement: may this be what the disk held at some cut in a window? README.md has
// the rule.
#pragma once

#include <cstdint>
#include <set>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "tests/integration/operation.h"

namespace ckpt {

// A range of the disk with bytes that nothing legal put there, and, by chance or not, some right
// ones between them.
struct Mismatch {
  uint64_t offset = 0;
  uint64_t length = 0;
  std::string detail;  // what was found, and what would have been legal
};

struct Report {
  std::vector<Mismatch> mismatches;  // at most Audit::kMaxMismatches, in order of offset
  uint64_t mismatched_bytes = 0;
  std::string
      cut_conflict;  // not empty: every byte is legal by itself, but no single cut explains all

  bool clean() const { return mismatched_bytes == 0 && cut_conflict.empty(); }
};

// Judges one copy of the disk. Used once, from one thread; base, operations and observed outlive
// it.
class Audit {
 public:
  static constexpr size_t kMaxMismatches = 16;

  Audit(std::span<const uint8_t> base, std::vector<Operation> operations, Window window);

  // `observed` is the whole disk, as long as the base.
  Report run(std::span<const uint8_t> observed);

 private:
  static constexpr size_t kNone = static_cast<size_t>(-1);

  // What may legally be found in a range: an operation's content, or the base (operation == kNone).
  using Candidates = std::vector<size_t>;

  // Cuts in [from, to] cannot explain what was found at `offset`.
  struct Excluded {
    Time from;
    Time to;
    uint64_t offset;
  };

  void enter(size_t operation);
  void leave(size_t operation);
  void collect_candidates();
  size_t match(size_t candidate, uint64_t offset, std::span<const uint8_t> data) const;
  void judge_range(uint64_t from, uint64_t to);
  void judge_page(uint64_t from, uint64_t to);
  bool judge_whole(uint64_t from, uint64_t to);
  void note_mismatch(uint64_t offset);
  void describe(Mismatch& mismatch) const;
  Time first_overwrite(size_t candidate) const;
  void exclude_cuts(uint64_t offset);
  void exclude(Time from, Time to, uint64_t offset);
  std::string find_conflict();

  std::span<const uint8_t> base_;
  std::vector<Operation> operations_;
  Window window_;
  std::span<const uint8_t> observed_;
  std::set<std::pair<Time, size_t>>
      active_;                   // operations over the current range, by the time they ended
  std::multiset<Time> settled_;  // when those that are surely in the copy were issued
  Candidates candidates_;        // of the current range
  Candidates matched_;           // those that explain the bytes being judged
  std::vector<std::pair<Time, Time>> allowed_;  // scratch of exclude_cuts()
  std::vector<Excluded> excluded_;
  Report report_;
};

}  // namespace ckpt
