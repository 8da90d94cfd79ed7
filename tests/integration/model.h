// SPDX-License-Identifier: Apache-2.0
// What the disk must hold: a base, every request since, and the windows in which checkpoints
// were cut.
#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "tests/integration/audit.h"
#include "tests/integration/operation.h"

namespace ckpt {

enum class Outcome {
  kDone,     // answered with success
  kFailed,   // answered with an error: it may have had an effect, but will have no further one
  kUnknown,  // never answered: it may still take effect, until lost()
};

// Threads: begin() and end() from any, the rest from one. Each tick() is an instant of its own.
class Model {
 public:
  explicit Model(std::vector<uint8_t> base) : base_(std::move(base)) {}

  uint64_t size_bytes() const { return base_.size(); }

  // Records the operation as issued now; to be called before its request is sent. Returns its
  // number, good until the next adoption.
  size_t begin(Operation operation);
  void end(size_t number, Outcome outcome);

  // The server is dead, or its connections are: what was not answered by now will have no effect
  // any more, and a checkpoint that was not answered was cut by now or never will be.
  void lost();

  // The window of the checkpoint `name`. A window that was never ended is open until lost().
  void begin_mark(const std::string& name);
  bool end_mark(const std::string& name);
  void drop_mark(const std::string& name);

  // A rollback to `name` ran between the two calls, with requests in flight. end_rollback() returns
  // false when there is no such mark or no begin_rollback().
  void begin_rollback();
  bool end_rollback(const std::string& name);

  // "now", or a mark's name.
  std::optional<Window> window(const std::string& name);
  Report check(std::span<const uint8_t> observed, Window window);

  // Makes `observed` the base and forgets the operations. Of the marks, `name` is kept as that
  // content; with "now", those are kept since whose begin nothing was issued. False: requests are
  // open.
  bool adopt(std::vector<uint8_t> observed, const std::string& name);

  size_t operation_count();
  size_t uncertain_count();

 private:
  Time tick() { return ++now_; }  // mutex_ held

  std::mutex mutex_;
  Time now_ = 0;
  std::vector<uint8_t> base_;
  std::deque<Operation> operations_;
  std::map<std::string, Window> marks_;
  std::optional<Time> rollback_began_;
};

}  // namespace ckpt
