// SPDX-License-Identifier: Apache-2.0
// How an action script of CRIU, which is another process, calls the command that started CRIU.
//
// A line with the name of the action one way; "ok", or the reason why not, the other way.
#pragma once

#include <optional>
#include <string>

#include "common/fd.h"
#include "common/result.h"
#include "tools/work_folder.h"

namespace ckpt {

// A call that waits for its answer; without one, the action has failed.
class HookCall {
 public:
  HookCall(std::string action, UniqueFd fd) : action_(std::move(action)), fd_(std::move(fd)) {}

  [[nodiscard]] const std::string& action() const { return action_; }
  void answer(const Result<>& outcome);

 private:
  std::string action_;  // "post-dump"
  UniqueFd fd_;
};

// Threads: one.
class HookSocket {
 public:
  // A socket, and beside it a script for CRIU that calls it, in a folder of their own that only
  // this user can enter.
  static Result<HookSocket> make();
  // For --action-script.
  [[nodiscard]] std::string script() const { return folder_.path() + "/hook"; }
  // The next call, if one comes within that time.
  std::optional<HookCall> next(int milliseconds);

 private:
  explicit HookSocket(WorkFolder folder) : folder_(std::move(folder)) {}

  WorkFolder folder_;
  UniqueFd listening_;
};

// What the script does: calls, and waits for the answer.
Result<> call_hook(const std::string& socket, const std::string& action);

}  // namespace ckpt
