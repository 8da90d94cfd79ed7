// SPDX-License-Identifier: Apache-2.0
// A virtual machine of QEMU's: its disks, and its memory on the way out and in.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "common/clock.h"
#include "tools/qmp.h"

namespace ckpt {

// What must be equal where a memory is loaded. QEMU checks more of it itself.
struct VmFacts {
  std::string qemu;     // "7.2.22"
  std::string machine;  // "pc-i440fx-7.2-machine"
  uint64_t memory_bytes = 0;
  uint64_t cpus = 0;
  std::string cpu;                   // the kind of the first, "max-x86_64-cpu"
  std::vector<std::string> devices;  // the kinds of those on its command line, ascending
  bool operator==(const VmFacts&) const = default;
};

// In which these differ; empty: in nothing. Later versions of QEMU load what earlier ones have
// saved, so that of QEMU is not compared.
std::string difference_between(const VmFacts& saved, const VmFacts& now);

struct VmDisk {
  std::string device;  // for people: what the guest's disk is called in QEMU
  std::string driver;  // what it is made of, outermost: "nbd", "raw", "qcow2"
  std::string uri;     // of the NBD server below, without its export's name; empty: there is none
  bool writable = false;
};

// Of what query-block returns. directory: QEMU's, for relative paths.
std::vector<VmDisk> parse_disks(const ParsedJson& blocks, const std::string& directory);

// In what kind of work folder the monitor of a QEMU is that this tool has started.
inline constexpr const char* kMonitorFolder = "ckpt-vm";

// The words of a QEMU without what it was told of an earlier memory, of waiting, and of this tool.
std::vector<std::string> words_for_new(const std::vector<std::string>& words);

// By what snapshots are called (vm_memory.h).
inline constexpr const char* kMemorySnapshot = "ckpt";

// Threads: one. The port outlives it.
class VirtualMachine {
 public:
  explicit VirtualMachine(QmpPort& port) : port_(port) {}

  // "running", "paused", "postmigrate", … (QEMU's RunState).
  Result<std::string> state();
  // Its disks get a flush each. It is a machine that stands still already: nothing but that.
  Result<> stop();
  Result<> go_on();
  // Somebody else has not let it go on since stop(): kBusy.
  Result<> check_stands_still();
  // Nothing is left of a tool that was killed, and nobody else saves or loads it: kBusy.
  Result<> take_over();
  // Notes in QEMU that its disks and its memory may be of two instants, until unmark(); whoever
  // makes a checkpoint looks.
  Result<> mark();
  Result<> unmark();
  Result<bool> is_marked();
  // What has crashed or was shut down, and still has its process, can run again after this.
  Result<> reset();
  Result<VmFacts> facts();
  Result<std::vector<VmDisk>> disks();
  // Of the channel of an agent in its guest, by the name that agents look for; empty: it has none,
  // or none that is a Unix socket of QEMU's.
  Result<std::string> agent_socket();
  // The words and the folder that one like it is started with; empty: not known.
  [[nodiscard]] std::vector<std::string> command() const;
  [[nodiscard]] std::string directory() const;

  // kInvalid, with QEMU's reason: it cannot save its memory while it runs.
  Result<> check_background();
  // All that can be done before it is stopped, so that it does not stand still for that. fd: a
  // file. end_background() then, whatever happens.
  Result<> prepare_background(int fd);
  // Writes the memory of a machine that stands still to that file. It goes on as soon as what it is
  // has been noted, and that is written while it runs; `on_running` is told, then. Failure: kVoid;
  // where it runs then is not said, but that QEMU will not let it.
  Result<> save_in_background(const std::function<void()>& on_running, SteadyTime deadline);
  void end_background();
  // The same into a side image (vm_memory.h), while it stands still; it does so afterwards.
  Result<> save(int side_image);
  // Loads a memory (VmMemory) into one that stands still, and goes on standing. Failure: it has
  // neither the old memory nor the new one, or it ran meanwhile and has written to its disks.
  Result<> load(int image);
  // The same for one that waits for it (-incoming defer); fd: at the stream.
  Result<> receive(int fd);

 private:
  Result<> set_background(bool on);
  Unexpected explain_failed(const Error& error);
  Result<> await_saved(const std::function<void()>& on_running, SteadyTime deadline);
  Result<> add_node(int image, uint64_t& descriptors);
  Result<> run_with_node(const std::string& command, int image);
  Result<> run_job(const std::string& command);
  Result<std::string> socket_of_device(const std::string& label);
  Result<bool> has_job(ParsedJson& job);
  Result<> clear_away();
  Result<> await_background();

  QmpPort& port_;
  std::optional<uint64_t> resumed_;    // how often, when it was stopped
  std::optional<uint64_t> bandwidth_;  // as it was; nothing: nothing is prepared
};

}  // namespace ckpt
