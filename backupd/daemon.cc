// SPDX-License-Identifier: Apache-2.0
#include "backupd/daemon.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/signalfd.h>
#include <syslog.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdio>
#include <fstream>

#include "backupd/server.h"
#include "backupd/shelf.h"
#include "backupd/supervisor.h"

namespace ckpt {
namespace {

void say(const std::string& line) { std::fprintf(stderr, "backupd: %s\n", line.c_str()); }

void say_to_log(const std::string& line) { syslog(LOG_NOTICE, "%s", line.c_str()); }

std::string describe(const ShelfLine& line) {
  const StoreStatus& status = line.status;
  std::string text =
      "volume " + line.volume.to_string() + ": " + std::to_string(line.size_bytes) +
      " bytes, confirmed " +
      (status.confirmed ? std::to_string(status.confirmed->id.number.value) : "none") +
      ", applied " + std::to_string(status.applied.value) + ", pending " +
      std::to_string(status.pending_bytes) + " bytes";
  return status.error.empty() ? text : text + "; " + status.error;
}

void describe_all(Shelf& shelf) {
  for (const ShelfLine& line : shelf.list()) {
    say(describe(line));
  }
  for (const auto& [volume, error] : shelf.damaged()) {
    say("volume " + volume.to_string() + " cannot be opened: " + error.message());
  }
}

// The signals that end it, as a descriptor: blocked in every thread, which inherit that.
Result<UniqueFd> block_signals() {
  sigset_t ending;
  sigemptyset(&ending);
  sigaddset(&ending, SIGTERM);
  sigaddset(&ending, SIGINT);
  if (sigprocmask(SIG_BLOCK, &ending, nullptr) != 0) {
    return fail_errno(errno, "sigprocmask");
  }
  UniqueFd fd(signalfd(-1, &ending, SFD_CLOEXEC | SFD_NONBLOCK));
  return fd ? Result<UniqueFd>(std::move(fd)) : fail_errno(errno, "signalfd");
}

// Leaves the terminal. The locks stay: they belong to the open files.
Result<> go_to_background() {
  const pid_t child = ::fork();
  if (child < 0) {
    return fail_errno(errno, "fork");
  }
  if (child > 0) {
    ::_exit(0);
  }
  (void)::setsid();
  const UniqueFd nothing(::open("/dev/null", O_RDWR | O_CLOEXEC));
  for (const int stream : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO}) {
    (void)::dup2(nothing.get(), stream);
  }
  openlog("backupd", LOG_PID, LOG_DAEMON);
  return {};
}

Result<> write_pid(const std::string& path) {
  std::ofstream file(path);
  file << ::getpid() << "\n" << std::flush;
  return file ? Result<>() : Result<>(fail(ErrorKind::kIo, path + ": cannot be written"));
}

Result<> listen(Server& server, const DaemonOptions& options) {
  CKPT_ASSIGN(auto inherited, inherited_listeners());
  server.add_listeners(std::move(inherited));
  const Reach reach = options.tls_off ? Reach::kAnywhere : Reach::kMachine;
  for (const Address& address : options.listen) {
    CKPT_ASSIGN(auto listeners, listen_at(address, reach));
    server.add_listeners(std::move(listeners));
  }
  return server.has_listeners()
             ? Result<>()
             : Result<>(fail(ErrorKind::kInvalid, "listen where? --listen unix:PATH|HOST:PORT"));
}

}  // namespace

Result<> run_daemon(const DaemonOptions& options) {
  CKPT_ASSIGN(const UniqueFd ending, block_signals());
  CKPT_ASSIGN(const auto shelf, Shelf::open(options.store));
  Server server(*shelf, {.silence = options.silence,
                         .software = "ckpt " CKPT_VERSION,
                         .log = options.foreground ? say : say_to_log});
  CKPT_TRY(listen(server, options));
  describe_all(*shelf);
  if (!options.foreground) {
    CKPT_TRY(go_to_background());
  }
  if (!options.pid_file.empty()) {
    CKPT_TRY(write_pid(options.pid_file));
  }
  shelf->start_pumps();
  tell_supervisor("READY=1");
  server.run(ending.get());
  tell_supervisor("STOPPING=1");
  return {};
}

}  // namespace ckpt
