// SPDX-License-Identifier: Apache-2.0
#include "tools/open_machine.h"

#include <fmt/format.h>

#include <filesystem>
#include <set>
#include <thread>

#include "common/clock.h"
#include "tools/vm_run.h"

namespace ckpt {
namespace {

constexpr std::chrono::seconds kLeavePatience{2};
constexpr std::chrono::milliseconds kLeaveLook{20};

}  // namespace

void add_with(Arguments& arguments, MachineName& machine) {
  arguments.add_texts("--with", "VOLUME", machine.with,
                      "Another volume that is a disk of the same machine; again for more");
}

void add_domain(Arguments& arguments, MachineName& machine) {
  arguments.add_filled_text("--domain", "NAME", machine.domain,
                            "Of libvirt, instead of --qmp; asked by virsh");
}

Result<std::vector<OpenedVolume>> open_volumes(Context& context, const VolumeName& name,
                                               const std::vector<std::string>& with,
                                               bool need_server) {
  std::vector<OpenedVolume> volumes;
  CKPT_ASSIGN(OpenedVolume first, open_primary(context, name));
  volumes.push_back(std::move(first));
  for (const std::string& path : with) {
    VolumeName other;
    other.path = path;
    CKPT_ASSIGN(OpenedVolume opened, open_primary(context, other));
    volumes.push_back(std::move(opened));
  }
  for (const OpenedVolume& opened : volumes) {
    if (!opened.served && need_server) {
      return fail(ErrorKind::kNotFound,
                  opened.paths.image + ": no server runs: no machine can have its disk");
    }
    if (const VolumeStatus status = opened.volume->status(); status.state.empty()) {
      return fail(ErrorKind::kIo, status.problem);
    }
  }
  return volumes;
}

Result<std::vector<RestoreLock>> lock_all(const std::vector<OpenedVolume>& volumes) {
  std::set<std::string> states;
  for (const OpenedVolume& opened : volumes) {
    states.insert(opened.paths.state);
  }
  if (states.size() != volumes.size()) {
    return fail(ErrorKind::kInvalid, "--with: one of the volumes is given twice");
  }
  std::vector<RestoreLock> locks;
  for (const std::string& state : states) {
    CKPT_ASSIGN(RestoreLock lock, RestoreLock::take(state));
    locks.push_back(std::move(lock));
  }
  return locks;
}

void use_own_monitor(const OpenedVolume& first, MachineName& machine) {
  std::error_code unknown;
  if (machine.qmp.empty() && machine.domain.empty() &&
      std::filesystem::exists(monitor_of(first.paths), unknown)) {
    machine.qmp = monitor_of(first.paths);
  }
}

Result<std::unique_ptr<QmpPort>> connect_machine(const MachineName& machine) {
  if (machine.domain.empty()) {
    CKPT_ASSIGN(auto socket, QmpSocket::connect(machine.qmp));
    return std::unique_ptr<QmpPort>(std::move(socket));
  }
  CKPT_ASSIGN(auto domain, QmpDomain::connect(machine.domain));
  return std::unique_ptr<QmpPort>(std::move(domain));
}

Result<> check_no_machine(const std::vector<OpenedVolume>& volumes) {
  const SteadyTime deadline = system_clock().steady() + kLeavePatience;
  for (const OpenedVolume& opened : volumes) {
    uint32_t count = opened.volume->status().connections;
    while (count > 0 && system_clock().steady() < deadline) {
      std::this_thread::sleep_for(kLeaveLook);
      count = opened.volume->status().connections;
    }
    if (count > 0) {
      return fail(ErrorKind::kBusy,
                  fmt::format("{}: {} client{} connected: end the machine first, or roll it back "
                              "in place (--qmp)",
                              opened.paths.image, count, count == 1 ? " is" : "s are"));
    }
  }
  return {};
}

}  // namespace ckpt
