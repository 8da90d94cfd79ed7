// SPDX-License-Identifier: Apache-2.0
// QEMU's machine protocol (QEMU's docs/interop/qmp-spec.txt): commands to a virtual machine.
#pragma once

#include <sys/types.h>

#include <chrono>
#include <memory>
#include <optional>
#include <string>

#include "common/fd.h"
#include "plugin/control_codec.h"

namespace ckpt {

// Somewhere that takes commands, one after the other.
//
// Threads: one.
class QmpPort {
 public:
  virtual ~QmpPort() = default;
  // What QEMU returns. fd: a descriptor that it gets with the command, for getfd and add-fd; -1:
  // none. Blocks until it answers.
  //
  // Failure: kIo, with QEMU's words: it refuses. kNotFound: it is gone. kTimeout: it does not
  //          answer; it may still do it.
  virtual Result<ParsedJson> execute(const std::string& command, const Json& arguments = {},
                                     int fd = -1) = 0;
  // Of QEMU; 0: not known.
  [[nodiscard]] virtual pid_t pid() const = 0;
  // How often the machine was told to go on, by anybody, of which QEMU has told so far; nothing: it
  // is not told here.
  [[nodiscard]] virtual std::optional<uint64_t> resumed() const { return std::nullopt; }
};

// By the Unix socket of a monitor: `-qmp unix:PATH,server=on,wait=off`.
class QmpSocket final : public QmpPort {
 public:
  // kNotFound: nobody is there. kBusy: it does not greet, as when another client is
  // connected: a monitor has one at a time. kInvalid: it is no QMP.
  static Result<std::unique_ptr<QmpSocket>> connect(const std::string& path);

  Result<ParsedJson> execute(const std::string& command, const Json& arguments = {},
                             int fd = -1) override;
  [[nodiscard]] pid_t pid() const override { return pid_; }
  [[nodiscard]] std::optional<uint64_t> resumed() const override { return resumed_; }

 private:
  QmpSocket(UniqueFd fd, std::string path) : fd_(std::move(fd)), path_(std::move(path)) {}
  Result<> greet();
  Result<> send(const std::string& line, int fd);
  Result<ParsedJson> receive(std::chrono::milliseconds patience);
  Result<std::string> receive_line(std::chrono::milliseconds patience);

  UniqueFd fd_;
  std::string path_;
  std::string received_;
  pid_t pid_ = 0;
  uint64_t resumed_ = 0;
};

// By libvirt, which has the monitor: `virsh qemu-monitor-command DOMAIN`. A descriptor can be
// passed where virsh and libvirtd are on this machine.
class QmpDomain final : public QmpPort {
 public:
  // kNotFound: there is no virsh, or no such domain, or it does not run.
  static Result<std::unique_ptr<QmpDomain>> connect(const std::string& domain);

  Result<ParsedJson> execute(const std::string& command, const Json& arguments = {},
                             int fd = -1) override;
  // libvirt starts QEMU: its words are not those for a new one.
  [[nodiscard]] pid_t pid() const override { return 0; }

 private:
  QmpDomain(std::string virsh, std::string domain)
      : virsh_(std::move(virsh)), domain_(std::move(domain)) {}

  const std::string virsh_;
  const std::string domain_;
};

// A field that is a text, a number or a truth value; "", 0 and false if it is not.
std::string text_in(const ParsedJson& object, const char* name);
uint64_t number_in(const ParsedJson& object, const char* name);
bool flag_in(const ParsedJson& object, const char* name);

}  // namespace ckpt
