// SPDX-License-Identifier: Apache-2.0
// What `run` and the command that it runs tell each other, by files: an open connection to a
// process outside could not be saved with the command.
//
// Format: docs/process-format.md
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "common/fd.h"
#include "common/store_link.h"
#include "tools/process_tree.h"

namespace ckpt {

// A checkpoint that a process has asked for.
struct RunAnswer {
  Epoch checkpoint;
  bool restored = false;  // the process was brought back to it
};

// The folder "run" in a volume's state directory. Threads: one.
class RunFolder {
 public:
  // Makes it. kBusy: another process has this volume's.
  static Result<RunFolder> open(const std::string& state);

  [[nodiscard]] const std::string& path() const { return path_; }
  [[nodiscard]] std::string log() const { return path_ + "/log"; }

  // The command's first process, so that it is known if this process is killed.
  Result<> note_root(pid_t root) const;
  // That of an earlier one, if it still lives.
  [[nodiscard]] std::optional<ProcessIdentity> leftover() const;

  // The checkpoint of the disk before the command was started, durably. 0: not known.
  Result<> note_base(Epoch base) const;
  [[nodiscard]] Epoch base() const;

  // Those who wait for a checkpoint, by what they call themselves.
  [[nodiscard]] std::vector<std::string> asks() const;
  // Tells them. Who was told of an earlier checkpoint need not be told again, once there is a later
  // one.
  void answer(const std::vector<std::string>& asks, const Result<RunAnswer>& answer) const;
  // The command is as it was at this checkpoint: who waited for it then, whatever was told since,
  // is told that; who had asked later does not know it any more.
  void go_back(Epoch target) const;
  // Of a command that begins anew nobody has asked.
  void forget_asks() const;

 private:
  RunFolder(std::string path, UniqueFd lock) : path_(std::move(path)), lock_(std::move(lock)) {}
  void write(const std::string& name, const std::string& text) const;
  void remove_all(const std::string& suffix) const;

  std::string path_;
  UniqueFd lock_;
};

// In the command: asks for a checkpoint, and waits until it exists, or until the process was
// brought back to it. `folder`: what $CKPT_CONTROL says.
// Failure: as VolumeApi::checkpoint; kTimeout also when nobody answers; kNotFound: no such folder.
Result<RunAnswer> ask_for_checkpoint(const std::string& folder, std::chrono::milliseconds timeout);

}  // namespace ckpt
