// SPDX-License-Identifier: Apache-2.0
// Other projects' programs: where they are, and what they say.
#pragma once

#include <sys/types.h>

#include <chrono>
#include <functional>
#include <string>
#include <vector>

#include "common/result.h"

namespace ckpt {

// Where a program is in a list of folders, as $PATH has it. Empty: in none of them.
std::string find_program(const std::string& name, const std::string& path);

// More than this is not read.
inline constexpr size_t kOutputBytesMax = 65536;

// Runs a program, without a shell, and returns what it says on both its streams. words: its path,
// then its arguments. Blocks until it has ended, at most for the time given and a second.
//
// `kept`: a descriptor that it has too, as long as it runs, such as that of a lock; -1: none.
//
// Failure: kTimeout when it has not ended in time; kNotFound when there is none; kIo, with the line
//          that it said first, when it ends with other than 0. It is killed when this returns, and
//          so are those that it started in its process group.
Result<std::string> output_of(const std::vector<std::string>& words,
                              std::chrono::milliseconds timeout, int kept = -1);

// Starts a program that outlives this process, and returns its number when it is ready, which is
// asked again and again. It is in a session of its own, reads nothing, has nothing open, and what
// it says is read until it is ready only. SIGTERM, SIGINT and SIGHUP, which end a service or a
// terminal as a whole, are ignored, if it does not want them. The kernel may write through it:
// where that is allowed, it does not wait for write-back itself (PR_SET_IO_FLUSHER).
//
// Failure: kTimeout when it is not ready in time; kIo, with the line that it said first, when it
//          ends before. It is killed then.
Result<pid_t> start_detached(const std::vector<std::string>& words,
                             const std::function<bool()>& is_ready,
                             std::chrono::milliseconds timeout);

// As execv(3) takes them. The words outlive it.
std::vector<char*> as_arguments(const std::vector<std::string>& words);

// How one has ended, as wait(2) has it, for people: "exit status 1", "signal 9".
std::string describe_end(int status);

// As a line for a shell.
std::string shell_line(const std::vector<std::string>& words);

}  // namespace ckpt
