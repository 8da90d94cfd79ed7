// SPDX-License-Identifier: Apache-2.0
// A program that runs beside the tool, and says what it says where the tool does.
#pragma once

#include <sys/types.h>

#include <chrono>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "common/result.h"

namespace ckpt {

// In a process group of its own, so that what a terminal interrupts is the tool, which decides.
//
// Threads:  one.
// Lifetime: the program outlives this, unless end() was called.
class ChildProgram {
 public:
  // Found in $PATH; it reads nothing. kNotFound: there is no such program.
  static Result<ChildProgram> start(const std::vector<std::string>& words);
  ChildProgram(ChildProgram&& other) noexcept
      : pid_(std::exchange(other.pid_, 0)), status_(other.status_) {}
  ChildProgram& operator=(ChildProgram&&) = delete;

  // How it has ended (wait(2)); nothing: it has not.
  std::optional<int> ended();
  // SIGTERM to its group, and SIGKILL if it has not ended by then. Waits for its end.
  void end(std::chrono::nanoseconds patience);

 private:
  explicit ChildProgram(pid_t pid) : pid_(pid) {}
  bool ends_within(std::chrono::nanoseconds patience);

  pid_t pid_;  // 0: it is no longer this one's
  std::optional<int> status_{};
};

}  // namespace ckpt
