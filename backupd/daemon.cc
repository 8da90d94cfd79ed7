// SPDX-License-Identifier: Apache-2.0
#include "backupd/daemon.h"

#include <fcntl.h>
#include <malloc.h>
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
#include "common/phase.h"
#include "common/text.h"

namespace ckpt {
namespace {

constexpr uint64_t kConnectionsMax = 4096;

void say(const std::string& line) { std::fprintf(stderr, "backupd: %s\n", line.c_str()); }

void say_to_log(const std::string& line) { syslog(LOG_NOTICE, "%s", line.c_str()); }

std::string describe(const ShelfLine& line) {
  const StoreStatus& status = line.status;
  std::string text =
      "volume " + line.volume.to_string() +
      (line.name.empty() ? "" : " (" + printable(line.name) + ")") + ": " +
      std::to_string(line.size_bytes) + " bytes, confirmed " +
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

// Signals as a descriptor: blocked in every thread, which inherit that.
Result<UniqueFd> block_signals(std::initializer_list<int> signals) {
  sigset_t blocked;
  sigemptyset(&blocked);
  for (const int signal : signals) {
    sigaddset(&blocked, signal);
  }
  if (sigprocmask(SIG_BLOCK, &blocked, nullptr) != 0) {
    return fail_errno(errno, "sigprocmask");
  }
  UniqueFd fd(signalfd(-1, &blocked, SFD_CLOEXEC | SFD_NONBLOCK));
  return fd ? Result<UniqueFd>(std::move(fd)) : fail_errno(errno, "signalfd");
}

Result<Guard> load_guard(const DaemonOptions& options) {
  Guard guard{nullptr, options.access};
  if (options.tls.is_used()) {
    CKPT_ASSIGN(guard.tls, TlsCredentials::load(options.tls, TlsSide::kServer));
  }
  return guard;
}

// What is wrong with the new options leaves the old ones in force.
void reload(int signals, Server& server, const Reparse& reparse, const LogLine& log) {
  signalfd_siginfo taken{};
  while (::read(signals, &taken, sizeof(taken)) > 0) {
  }
  const auto options = reparse();
  auto guard = options ? load_guard(*options) : Result<Guard>(Unexpected(options.error()));
  // Without TLS the addresses that are listened at may be too far.
  if (auto within_reach = guard ? server.check_reach(options->tls.reach()) : Result<>();
      !within_reach) {
    guard = Unexpected(within_reach.error());
  }
  if (!guard) {
    log("not reloaded, and goes on as before: " + guard.error().message());
    return;
  }
  server.set_guard(std::move(*guard));
  log("reloaded: TLS and the access list hold for connections from here on");
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

// As sd_notify(3) wants it with RELOADING=1.
int64_t monotonic_us() {
  return std::chrono::duration_cast<std::chrono::microseconds>(system_clock().steady()).count();
}

Result<> write_pid(const std::string& path) {
  std::ofstream file(path);
  file << ::getpid() << "\n" << std::flush;
  return file ? Result<>() : Result<>(fail(ErrorKind::kIo, path + ": cannot be written"));
}

// Without it the volumes are served all the same. Whoever listens there already is this daemon, by
// its options or its supervisor: nobody else has the folder. True: it is this one's to remove.
bool listen_in_folder(Server& server, const Shelf& shelf, const std::string& folder) {
  auto listeners = listen_at(shelf.own_address(), Reach::kMachine);
  if (listeners) {
    server.add_listeners(std::move(*listeners));
  } else if (listeners.error().kind != ErrorKind::kBusy) {
    say(folder + "/" + kBackupdSocketName +
        ": promote and rejoin need this backupd to be stopped: " + listeners.error().message());
  }
  return listeners.has_value();
}

Result<> listen(Server& server, const DaemonOptions& options) {
  const Reach reach = options.tls.reach();
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

// Buffers of frames go back to the system when they are freed, instead of staying with the thread
// that had them (mallopt(3)): there may be hundreds of idle connections.
void give_memory_back() { (void)mallopt(M_MMAP_THRESHOLD, 128 * 1024); }

}  // namespace

Result<> run_daemon(const DaemonOptions& options, const Reparse& reparse) {
  CKPT_ASSIGN(Guard guard, load_guard(options));
  if (options.check_only) {
    std::puts("backupd: the configuration is right");
    return {};
  }
  give_memory_back();
  open_phase_file();
  CKPT_ASSIGN(const UniqueFd ending, block_signals({SIGTERM, SIGINT}));
  CKPT_ASSIGN(const UniqueFd reloading, block_signals({SIGHUP}));
  const uint64_t descriptors = raise_descriptor_limit();
  CKPT_ASSIGN(const auto shelf, Shelf::open(options.store));
  const LogLine log = options.foreground ? say : say_to_log;
  Server server(*shelf, {.silence = options.silence,
                         .connections_max = std::min(kConnectionsMax, descriptors / 2),
                         .software = "ckpt " CKPT_VERSION,
                         .log = log});
  server.set_guard(std::move(guard));
  CKPT_TRY(listen(server, options));
  const bool has_socket = listen_in_folder(server, *shelf, options.store);
  describe_all(*shelf);
  Background background;
  if (!options.foreground) {
    CKPT_TRY(background.enter());
  }
  if (!options.pid_file.empty()) {
    CKPT_TRY(write_pid(options.pid_file));
  }
  CKPT_TRY(shelf->start_pumps(options.relays, log));
  if (!options.foreground) {
    background.serve();
  }
  tell_supervisor("READY=1");
  server.run(ending.get(), reloading.get(), [&] {
    tell_supervisor("RELOADING=1\nMONOTONIC_USEC=" + std::to_string(monotonic_us()));
    reload(reloading.get(), server, reparse, log);
    tell_supervisor("READY=1");
  });
  tell_supervisor("STOPPING=1");
  if (has_socket) {
    shelf->remove_socket();
  }
  return {};
}

}  // namespace ckpt
