// SPDX-License-Identifier: Apache-2.0
// The bookkeeping behind the oracle; the judgement itself is in audit.cc.

#include "tests/integration/model.h"

#include <algorithm>
#include <utility>

namespace ckpt {

size_t Model::begin(Operation operation) {
  const std::lock_guard lock(mutex_);
  operation.issued = tick();
  operation.ended = kNever;
  operation.certain = false;
  operations_.push_back(operation);
  return operations_.size() - 1;
}

void Model::end(size_t number, Outcome outcome) {
  const std::lock_guard lock(mutex_);
  Operation& operation = operations_.at(number);
  if (outcome == Outcome::kUnknown) return;
  operation.ended = tick();
  operation.certain = outcome == Outcome::kDone && !operation.doubtful;
}

void Model::lost() {
  const std::lock_guard lock(mutex_);
  for (Operation& operation : operations_) {
    if (operation.ended == kNever) operation.ended = tick();
  }
  for (auto& [name, window] : marks_) {
    if (window.end == kNever) window.end = tick();
  }
}

void Model::begin_mark(const std::string& name) {
  const std::lock_guard lock(mutex_);
  marks_[name] = Window{.begin = tick(), .end = kNever};
}

bool Model::end_mark(const std::string& name) {
  const std::lock_guard lock(mutex_);
  const auto mark = marks_.find(name);
  if (mark == marks_.end() || mark->second.end != kNever) return false;
  mark->second.end = tick();
  return true;
}

void Model::drop_mark(const std::string& name) {
  const std::lock_guard lock(mutex_);
  marks_.erase(name);
}

void Model::begin_rollback() {
  const std::lock_guard lock(mutex_);
  rollback_began_ = tick();
}

// What was over before the rollback began and came after the checkpoint is gone. What may be in the
// checkpoint stays, certain only if it must be. What met the rollback may have been undone by it.
bool Model::end_rollback(const std::string& name) {
  const std::lock_guard lock(mutex_);
  const auto mark = marks_.find(name);
  if (mark == marks_.end() || !rollback_began_) return false;
  const Window window = mark->second;
  const Time began = *std::exchange(rollback_began_, std::nullopt);
  for (Operation& operation : operations_) {
    if (operation.ended < window.begin) continue;
    if (operation.issued >= window.end && operation.ended < began) operation.length = 0;
    operation.certain = false;
    operation.doubtful = true;
  }
  tick();
  return true;
}

std::optional<Window> Model::window(const std::string& name) {
  const std::lock_guard lock(mutex_);
  if (name == "now") {
    const Time now = tick();
    return Window{.begin = now, .end = now};
  }
  const auto mark = marks_.find(name);
  if (mark == marks_.end()) return std::nullopt;
  const Window open{.begin = mark->second.begin, .end = now_ + 1};
  return mark->second.end == kNever ? open : mark->second;
}

Report Model::check(std::span<const uint8_t> observed, Window window) {
  std::unique_lock lock(mutex_);
  std::vector<Operation> operations(operations_.begin(), operations_.end());
  lock.unlock();
  return Audit(base_, std::move(operations), window).run(observed);
}

bool Model::adopt(std::vector<uint8_t> observed, const std::string& name) {
  const std::lock_guard lock(mutex_);
  Time last = 0;
  for (const Operation& operation : operations_) last = std::max(last, operation.ended);
  if (last == kNever) return false;
  std::erase_if(marks_, [&](const auto& mark) {
    return name == "now" ? mark.second.begin < last : mark.first != name;
  });
  base_ = std::move(observed);
  operations_.clear();
  const Time now = tick();
  for (auto& [kept, window] : marks_) window = Window{.begin = now, .end = now};
  return true;
}

size_t Model::operation_count() {
  const std::lock_guard lock(mutex_);
  return operations_.size();
}

size_t Model::uncertain_count() {
  const std::lock_guard lock(mutex_);
  return static_cast<size_t>(std::count_if(operations_.begin(), operations_.end(),
                                           [](const Operation& o) { return !o.certain; }));
}

}  // namespace ckpt
