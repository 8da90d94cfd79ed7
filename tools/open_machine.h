// SPDX-License-Identifier: Apache-2.0
// From what the user calls a virtual machine to its volumes, and to the monitor that it is spoken
// to by.
#pragma once

#include "tools/command.h"
#include "tools/qmp.h"
#include "tools/saved_processes.h"

namespace ckpt {

// How the user named a machine, besides its first volume.
struct MachineName {
  std::string qmp{};                // of a monitor's socket
  std::string domain{};             // or of libvirt
  std::vector<std::string> with{};  // further volumes of the machine
};

void add_with(Arguments& arguments, MachineName& machine);
void add_domain(Arguments& arguments, MachineName& machine);

// The volume, and those that go with it. kNotFound: one is not there, or it has no server where one
// is needed.
Result<std::vector<OpenedVolume>> open_volumes(Context& context, const VolumeName& name,
                                               const std::vector<std::string>& with,
                                               bool need_server);

// Of each volume, so that whatever is given first is kept apart; always in the same order.
// kInvalid: one is given twice. kBusy: another command has one.
Result<std::vector<RestoreLock>> lock_all(const std::vector<OpenedVolume>& volumes);

// The monitor of a machine that `vm run` has started, unless another way is given.
void use_own_monitor(const OpenedVolume& first, MachineName& machine);

// By its monitor, or by libvirt. As QmpSocket::connect() and QmpDomain::connect().
Result<std::unique_ptr<QmpPort>> connect_machine(const MachineName& machine);

// kBusy: a volume has clients. Waits for those that are just leaving.
Result<> check_no_machine(const std::vector<OpenedVolume>& volumes);

}  // namespace ckpt
