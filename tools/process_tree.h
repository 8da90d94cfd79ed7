// SPDX-License-Identifier: Apache-2.0
// A process with all that descend from it.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <string>
#include <vector>

#include "common/result.h"

namespace ckpt {

// What tells a process from a later one with its number.
struct ProcessIdentity {
  pid_t pid = 0;
  std::string name;     // as the kernel has it, at most 15 bytes (proc_pid_comm(5))
  std::string command;  // the first words that it was started with, made printable
  bool operator==(const ProcessIdentity&) const = default;
};

// The process first. Those that end meanwhile are left out. kNotFound: there is no such process.
Result<std::vector<ProcessIdentity>> process_tree(pid_t root);

// Whether one that it has started has ended, and nobody has waited for that yet.
bool has_ended_child(pid_t parent);

// A signal that has not yet reached one of a tree, nor is ignored, and tells it to end (SIGTERM,
// SIGINT, SIGHUP or SIGQUIT), or kills it since it has no handler, such as SIGSEGV. 0: there is
// none.
int ending_signal(pid_t root);

// When it began, in ticks since the machine did (proc_pid_stat(5)). 0: there is no such process.
uint64_t start_of(pid_t pid);

// Whether CRIU could take it: kNotFound: there is none. kInvalid: a kernel thread, or this process
// is among its descendants and would be frozen with it.
Result<> check_can_freeze(pid_t root);

// Whether it is in another PID namespace than this process (pid_namespaces(7)). False: it has
// ended.
bool has_own_numbers(pid_t pid);

// Whether those on record that still live can be ended. kBusy: a number is now another program's,
// or this process descends from one of them.
Result<> check_can_end(const std::vector<ProcessIdentity>& processes);

// Those on record that still live, and all that descend from them by now.
std::vector<ProcessIdentity> living(const std::vector<ProcessIdentity>& processes);

// Whether those on record that have ended have given up their numbers, too, which another one can
// have only then: waits for that, 5 s at most, but for those whose parent is among them and still
// lives. kBusy: a parent has not taken notice; it is named.
Result<> check_numbers_free(const std::vector<ProcessIdentity>& processes);

// Kills those, and waits until they have ended; 60 s at most. kBusy, before any is killed: as
// check_can_end().
Result<> end_processes(const std::vector<ProcessIdentity>& processes);

}  // namespace ckpt
