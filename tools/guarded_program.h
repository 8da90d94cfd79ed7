// SPDX-License-Identifier: Apache-2.0
// A program that outlives this process once it is handed over, and ends with it before that.
#pragma once

#include <sys/types.h>

#include <chrono>
#include <memory>
#include <string>
#include <vector>

#include "common/fd.h"
#include "common/result.h"

namespace ckpt {

// A second process, the guard, waits for the end of this one, so that none is left by SIGKILL
// either. PR_SET_PDEATHSIG is no way: nobody but the program itself could take it back.
//
// Threads: one.
class GuardedProgram {
 public:
  // In a session of its own and in a folder (empty: this process's); what it says is appended to a
  // file. Found in $PATH, as execvp(3) does. kNotFound: there is no such program.
  static Result<std::unique_ptr<GuardedProgram>> start(const std::vector<std::string>& words,
                                                       const std::string& folder,
                                                       const std::string& log);
  // It is killed, unless it was released.
  ~GuardedProgram();
  GuardedProgram(const GuardedProgram&) = delete;
  GuardedProgram& operator=(const GuardedProgram&) = delete;

  // Whether it has ended by then.
  bool ends_within(std::chrono::nanoseconds patience);
  // It outlives this process. Its number; 0: it has ended.
  pid_t release();

 private:
  GuardedProgram(pid_t program, pid_t guard, UniqueFd lifeline)
      : program_(program), guard_(guard), lifeline_(std::move(lifeline)) {}
  void dismiss_guard();

  pid_t program_;  // 0: it has ended, or is no longer this process's
  pid_t guard_;
  UniqueFd lifeline_;  // what the guard waits for: a word, or the end of this process
};

}  // namespace ckpt
