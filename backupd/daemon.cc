// SPDX-License-Identifier: Apache-2.0
#include "backupd/daemon.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <syslog.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <fstream>

#include "backupd/server.h"
#include "backupd/shelf.h"
#include "backupd/supervisor.h"

namespace ckpt {
namespace {

constexpr uint64_t kConnectionsMax = 4096;

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

// The daemon in the background, whose parent waits until it serves, and then ends. The locks stay:
// they belong to the open files.
class Background {
 public:
  // In the child it returns; the parent ends with the status that the child's fate deserves.
  Result<> enter() {
    int ends[2] = {-1, -1};
    if (::pipe2(ends, O_CLOEXEC) != 0) {
      return fail_errno(errno, "pipe");
    }
    const UniqueFd waited(ends[0]);
    serving_.reset(ends[1]);
    const pid_t child = ::fork();
    if (child < 0) {
      return fail_errno(errno, "fork");
    }
    if (child > 0) {
      serving_.reset();
      char word = 0;
      ::_exit(::read(waited.get(), &word, 1) == 1 ? 0 : 1);
    }
    (void)::setsid();
    openlog("backupd", LOG_PID, LOG_DAEMON);
    return {};
  }
  // Leaves the terminal, to which errors went until here.
  void serve() {
    const UniqueFd nothing(::open("/dev/null", O_RDWR | O_CLOEXEC));
    for (const int stream : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO}) {
      (void)::dup2(nothing.get(), stream);
    }
    (void)::write(serving_.get(), "", 1);
    serving_.reset();
  }

 private:
  UniqueFd serving_;  // the parent waits for a byte
};

// Each volume takes several descriptors, each connection one.
uint64_t raise_descriptor_limit() {
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0) {
    return 0;
  }
  const rlim_t before = limit.rlim_cur;
  limit.rlim_cur = limit.rlim_max;
  return setrlimit(RLIMIT_NOFILE, &limit) == 0 ? limit.rlim_max : before;
}

Result<> write_pid(const std::string& path) {
  std::ofstream file(path);
  file << ::getpid() << "\n" << std::flush;
  return file ? Result<>() : Result<>(fail(ErrorKind::kIo, path + ": cannot be written"));
}

Result<> listen(Server& server, const DaemonOptions& options) {
  const Reach reach = options.tls_off ? Reach::kAnywhere : Reach::kMachine;
  CKPT_ASSIGN(auto inherited, inherited_listeners(reach));
  server.add_listeners(std::move(inherited));
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
  const uint64_t descriptors = raise_descriptor_limit();
  CKPT_ASSIGN(const auto shelf, Shelf::open(options.store));
  Server server(*shelf, {.silence = options.silence,
                         .connections_max = std::min(kConnectionsMax, descriptors / 2),
                         .software = "ckpt " CKPT_VERSION,
                         .log = options.foreground ? say : say_to_log});
  CKPT_TRY(listen(server, options));
  describe_all(*shelf);
  Background background;
  if (!options.foreground) {
    CKPT_TRY(background.enter());
  }
  if (!options.pid_file.empty()) {
    CKPT_TRY(write_pid(options.pid_file));
  }
  CKPT_TRY(shelf->start_pumps());
  if (!options.foreground) {
    background.serve();
  }
  tell_supervisor("READY=1");
  server.run(ending.get());
  tell_supervisor("STOPPING=1");
  return {};
}

}  // namespace ckpt
