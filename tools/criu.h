// SPDX-License-Identifier: Apache-2.0
// Runs CRIU, which saves processes and brings them back (criu(8)).
#pragma once

#include <sys/types.h>

#include <chrono>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "common/result.h"
#include "tools/hook_socket.h"

namespace ckpt {

struct CriuDump {
  pid_t pid = 0;
  std::string images;                  // an empty folder
  bool leave_running = true;           // else the processes end with the dump
  std::vector<std::string> options{};  // more words for CRIU
};

struct CriuRestore {
  std::string images;
  std::vector<std::string> options{};
  int kept = -1;  // a descriptor that CRIU has as long as it runs
};

// Where CRIU is. kNotFound: nowhere.
Result<std::string> find_criu();

// Dumps a process tree, and answers what CRIU calls meanwhile: with an error the dump fails, and
// the processes run on. Blocks until CRIU has ended.
//
// Failure: that of an action; else kVoid, with what CRIU says. The processes run on.
Result<> dump_processes(const CriuDump& dump, HookSocket& hook,
                        const std::function<Result<>(const std::string& action)>& on_action);

// Brings them back, and leaves them running: the number of their root, as this process sees it.
// kHalfway, with what CRIU says: they are not.
Result<pid_t> restore_processes(const CriuRestore& restore);

// How long the processes were frozen, by what CRIU notes of a dump (its images/stats.proto).
// Nothing: it has not said so.
std::optional<std::chrono::microseconds> frozen_time(const std::string& images);

// What is wrong, out of a log of CRIU's: its first errors. Empty: none.
std::string errors_of(const std::string& log);

}  // namespace ckpt
