// SPDX-License-Identifier: Apache-2.0
// A command in PID and mount namespaces of its own, so that all of it can be saved, ended and
// brought back with the numbers that its processes have for each other.
#pragma once

#include <sys/types.h>

#include <optional>
#include <string>
#include <vector>

#include "common/result.h"

namespace ckpt {

struct ContainedCommand {
  std::vector<std::string> words;   // the program, looked for in $PATH, and its arguments
  std::string log;                  // where its output is appended
  std::string control;              // what $CKPT_CONTROL is for it
  std::vector<std::string> unseen;  // mounts that its namespace does not have
};

// What CRIU must be told of a command that was started so, for a dump and for a restore: all its
// mounts are those of the machine, and locks on files are between its own processes.
std::vector<std::string> contained_options();

// Processes that were started by those that this one has started, and have lost their parent,
// become its children (prctl(2)): so does what CRIU restores.
Result<> adopt_orphans();

// Whether this user may have such namespaces on this machine. Threads: as start_contained().
Result<> check_can_contain();

// Starts it in the folder that this process is in. Its input is empty.
//
// Returns its first process, a child of this one. That waits for those that nobody else waits for,
// passes SIGTERM, SIGINT, SIGHUP, SIGQUIT, SIGUSR1 and SIGUSR2 on to the command, and ends as the
// command does: with its exit code, with 128 and the signal that killed it, 127 if it cannot be
// executed.
//
// Threads: while no other thread runs, after adopt_orphans().
// Failure: kIo, such as of who is not root.
Result<pid_t> start_contained(const ContainedCommand& command);

// Waits for all of this process's children that have ended. Nothing: this one has not. Else its
// exit code, as of start_contained().
std::optional<int> reap(pid_t child);

// "was killed by signal 9", "ended with exit code 3"; of such an exit code, 0 to 255.
std::string how_it_ended(int exit_code);

}  // namespace ckpt
