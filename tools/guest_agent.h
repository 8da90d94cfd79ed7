// SPDX-License-Identifier: Apache-2.0
// QEMU's agent in a guest (QEMU's docs/interop/qemu-ga.rst): it makes file systems stand still,
// with all that they have cached on the disk.
#pragma once

#include <memory>
#include <string>

#include "common/fd.h"
#include "plugin/control_codec.h"

namespace ckpt {

// Threads: one.
class GuestAgent {
 public:
  virtual ~GuestAgent() = default;
  // What the agent returns. kIo, with its words: it refuses. kTimeout: it does not answer.
  virtual Result<ParsedJson> execute(const std::string& command) = 0;
};

// By the socket of its channel (`-chardev socket,path=PATH,server=on,wait=off,…`). kNotFound:
// nobody listens there; kTimeout: no agent answers behind it.
Result<std::unique_ptr<GuestAgent>> connect_agent(const std::string& path);

// By libvirt (`virsh qemu-agent-command`). kNotFound: the domain has none, or it does not answer.
Result<std::unique_ptr<GuestAgent>> connect_agent_of_domain(const std::string& domain);

// File systems that stand still, until this ends: at the latest it lets them go.
class FrozenFileSystems {
 public:
  // The agent outlives it. On failure none stands still, unless the agent does not answer.
  static Result<std::unique_ptr<FrozenFileSystems>> freeze(GuestAgent& agent);
  FrozenFileSystems(const FrozenFileSystems&) = delete;
  FrozenFileSystems& operator=(const FrozenFileSystems&) = delete;
  ~FrozenFileSystems() { (void)thaw(); }

  // They go on. kIo, kTimeout: they may not, and what to do is said.
  Result<> thaw();
  [[nodiscard]] uint64_t count() const { return count_; }

 private:
  FrozenFileSystems(GuestAgent& agent, uint64_t count) : agent_(agent), count_(count) {}

  GuestAgent& agent_;
  const uint64_t count_;
  bool is_over_ = false;
};

}  // namespace ckpt
