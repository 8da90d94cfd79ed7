// SPDX-License-Identifier: Apache-2.0
// Sweeps the elementary ranges between the operations' boundaries. An operation A is settled at a
// copy when it ended before the window; it then hides everything that had ended before A was
// issued.

#include "tests/integration/audit.h"

#include <algorithm>
#include <sstream>
#include <tuple>

#include "tests/integration/content.h"

namespace ckpt {

namespace {

constexpr uint64_t kPageBytes =
    4096;  // the product's block: mixtures of writes in flight change there

struct Boundary {
  uint64_t offset;
  size_t operation;
  bool enters;
};

std::vector<Boundary> sorted_boundaries(const std::vector<Operation>& operations) {
  std::vector<Boundary> boundaries;
  boundaries.reserve(operations.size() * 2);
  for (size_t i = 0; i < operations.size(); ++i) {
    boundaries.push_back({operations[i].offset, i, true});
    boundaries.push_back({operations[i].offset + operations[i].length, i, false});
  }
  std::sort(boundaries.begin(), boundaries.end(),
            [](const Boundary& a, const Boundary& b) { return a.offset < b.offset; });
  return boundaries;
}

const char* name_of(OperationKind kind) {
  switch (kind) {
    case OperationKind::kWrite: return "write";
    case OperationKind::kZero: return "zero";
    case OperationKind::kTrim: return "trim";
  }
  return "?";
}

}  // namespace

Audit::Audit(std::span<const uint8_t> base, std::vector<Operation> operations, Window window)
    : base_(base), operations_(std::move(operations)), window_(window) {
  std::erase_if(operations_, [&](const Operation& operation) {
    return operation.issued >= window_.end || operation.length == 0;
  });
}

Report Audit::run(std::span<const uint8_t> observed) {
  observed_ = observed;
  uint64_t from = 0;
  for (const Boundary& boundary : sorted_boundaries(operations_)) {
    judge_range(from, boundary.offset);
    from = boundary.offset;
    boundary.enters ? enter(boundary.operation) : leave(boundary.operation);
  }
  judge_range(from, observed_.size());
  if (report_.mismatched_bytes == 0) report_.cut_conflict = find_conflict();
  return std::move(report_);
}

void Audit::enter(size_t operation) {
  const Operation& o = operations_[operation];
  active_.emplace(o.ended, operation);
  if (o.certain && o.ended < window_.begin) settled_.insert(o.issued);
}

void Audit::leave(size_t operation) {
  const Operation& o = operations_[operation];
  active_.erase({o.ended, operation});
  if (o.certain && o.ended < window_.begin) settled_.erase(settled_.find(o.issued));
}

void Audit::collect_candidates() {
  candidates_.clear();
  const Time hidden_before = settled_.empty() ? 0 : *settled_.rbegin();
  for (auto i = active_.rbegin(); i != active_.rend() && i->first >= hidden_before; ++i) {
    candidates_.push_back(i->second);
  }
  if (settled_.empty()) candidates_.push_back(kNone);
}

size_t Audit::match(size_t candidate, uint64_t offset, std::span<const uint8_t> data) const {
  if (candidate == kNone) return equal_match(data, base_.subspan(offset));
  const Operation& operation = operations_[candidate];
  if (operation.kind != OperationKind::kWrite) return zero_match(data);
  return content_match(operation.seed, offset, data);
}

void Audit::judge_range(uint64_t from, uint64_t to) {
  if (from == to) return;
  collect_candidates();
  if (judge_whole(from, to)) return;
  while (from < to) {
    const uint64_t page_end = std::min(to, (from / kPageBytes + 1) * kPageBytes);
    judge_page(from, page_end);
    from = page_end;
  }
}

// True when at least one candidate explains all of [from, to).
bool Audit::judge_whole(uint64_t from, uint64_t to) {
  matched_.clear();
  const auto data = observed_.subspan(from, to - from);
  for (const size_t candidate : candidates_) {
    if (match(candidate, from, data) == data.size()) matched_.push_back(candidate);
  }
  if (matched_.empty()) return false;
  exclude_cuts(from);
  return true;
}

void Audit::judge_page(uint64_t from, uint64_t to) {
  if (judge_whole(from, to)) return;
  for (uint64_t at = from; at < to; ++at) {
    if (!judge_whole(at, at + 1)) note_mismatch(at);
  }
}

void Audit::note_mismatch(uint64_t offset) {
  ++report_.mismatched_bytes;
  auto& all = report_.mismatches;
  if (!all.empty() && offset - all.back().offset - all.back().length < kPageBytes) {
    all.back().length = offset + 1 - all.back().offset;
  } else if (all.size() < kMaxMismatches) {
    all.push_back({.offset = offset, .length = 1, .detail = {}});
    describe(all.back());
  }
}

void Audit::describe(Mismatch& mismatch) const {
  std::ostringstream text;
  const uint64_t at = mismatch.offset;
  text << "found " << unsigned{observed_[at]} << ", window " << window_.begin << ".." << window_.end
       << ", legal:";
  for (const size_t candidate : candidates_) {
    if (candidate == kNone) {
      text << " base " << unsigned{base_[at]};
      continue;
    }
    const Operation& o = operations_[candidate];
    const unsigned byte = o.kind == OperationKind::kWrite ? content_byte(o.seed, at) : 0U;
    text << ' ' << name_of(o.kind) << ' ' << byte << " (" << o.offset << '+' << o.length << " at "
         << o.issued << "..";
    (o.ended == kNever ? text << "open" : text << o.ended) << (o.certain ? ")" : " uncertain)");
  }
  for (size_t i = 0; i < operations_.size(); ++i) {
    const Operation& o = operations_[i];
    const bool writes = o.kind == OperationKind::kWrite;
    const auto around = observed_.subspan(at, std::min<uint64_t>(8, observed_.size() - at));
    if (writes && o.covers(at) && content_match(o.seed, at, around) == around.size()) {
      text << "; found is the write " << o.offset << '+' << o.length << " at " << o.issued << ".."
           << o.ended;
    }
  }
  mismatch.detail = text.str();
}

// When the candidate is overwritten for certain: a cut after that cannot show it.
Time Audit::first_overwrite(size_t candidate) const {
  const Time ended = candidate == kNone ? 0 : operations_[candidate].ended;
  Time first = kNever;
  for (const size_t other : candidates_) {
    if (other == kNone || other == candidate) continue;
    const Operation& o = operations_[other];
    const bool later = candidate == kNone || o.issued > ended;
    if (o.certain && later) first = std::min(first, o.ended);
  }
  return first;
}

// Each matched candidate allows the cuts after it was issued and up to its first overwrite.
void Audit::exclude_cuts(uint64_t offset) {
  if (window_.begin == window_.end) return;
  allowed_.clear();
  for (const size_t candidate : matched_) {
    const Time after = candidate == kNone ? 0 : operations_[candidate].issued + 1;
    allowed_.emplace_back(std::max(after, window_.begin), first_overwrite(candidate));
  }
  std::sort(allowed_.begin(), allowed_.end());
  Time next = window_.begin;
  for (const auto& [first, last] : allowed_) {
    if (first > next) exclude(next, first - 1, offset);
    if (last >= window_.end) return;
    next = std::max(next, last + 1);
  }
  exclude(next, window_.end, offset);
}

void Audit::exclude(Time from, Time to, uint64_t offset) {
  const bool repeats =
      !excluded_.empty() && excluded_.back().from == from && excluded_.back().to == to;
  if (!repeats) excluded_.push_back({from, to, offset});
}

// Walks the excluded cuts from the left; when they reach the window's end, no cut is left. Names
// the ranges that do it: the fewest possible, usually two.
std::string Audit::find_conflict() {
  std::sort(excluded_.begin(), excluded_.end(), [](const Excluded& a, const Excluded& b) {
    return std::tie(a.from, a.to) < std::tie(b.from, b.to);
  });
  std::ostringstream text;
  text << "no cut in " << window_.begin << ".." << window_.end << ":";
  Time next = window_.begin;
  for (size_t i = 0; next <= window_.end;) {
    const Excluded* best = nullptr;
    for (; i < excluded_.size() && excluded_[i].from <= next; ++i) {
      if (best == nullptr || excluded_[i].to > best->to) best = &excluded_[i];
    }
    if (best == nullptr || best->to < next) return {};
    text << " offset " << best->offset << " excludes " << best->from << ".." << best->to << ';';
    next = best->to + 1;
  }
  return text.str();
}

}  // namespace ckpt
