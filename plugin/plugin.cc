// SPDX-License-Identifier: Apache-2.0
// The nbdkit plugin: translates callbacks into the volume's requests (nbdkit-plugin(3)).
#include "common/clock.h"
#include "common/phase.h"
#include "plugin/config.h"
#include "plugin/control_server.h"
#include "plugin/listeners.h"
#include "plugin/local_volume.h"
#include "plugin/own_export.h"

#define NBDKIT_API_VERSION 2
#include <nbdkit-plugin.h>
#include <sys/prctl.h>

#include <cerrno>
#include <cstdio>
#include <memory>

#define THREAD_MODEL NBDKIT_THREAD_MODEL_PARALLEL

// Debug flags, which nbdkit sets by name before any callback: nbdkit -v -D ckpt.ship=1
// (nbdkit-plugin(3), Debug Flags).
extern "C" {
NBDKIT_DLL_PUBLIC int ckpt_debug_ship = 0;
NBDKIT_DLL_PUBLIC int ckpt_debug_store = 0;
}

namespace ckpt {
namespace {

// All that the plugin has: nbdkit's callbacks for the whole server carry no handle.
struct Server {
  LocalOptions options;
  std::unique_ptr<LocalVolume> local;
  std::unique_ptr<ControlServer> control;
  std::string description;  // of the export
};

Server& server() {
  static Server instance;
  return instance;
}

struct Connection {
  std::shared_ptr<Client> client;
};

Volume& volume() { return server().local->volume(); }

// Runs a callback's work: its error goes to the log and, as an errno, to the client. No exception
// crosses into C: the only ones there can be are the standard library's.
template <typename Work>
int report(const Work& work) noexcept {
  try {
    const Result<> outcome = work();
    if (outcome) {
      return 0;
    }
    nbdkit_error("%s", outcome.error().message().c_str());
    nbdkit_set_error(outcome.error().to_errno());
  } catch (const std::exception& exception) {
    nbdkit_error("%s", exception.what());
    nbdkit_set_error(ENOMEM);
  }
  return -1;
}

Client& client_of(void* handle) { return *static_cast<Connection*>(handle)->client; }

int config(const char* key, const char* value) noexcept {
  return report([&] { return set_parameter(server().options, key, value); });
}

int config_complete() noexcept {
  return report([]() -> Result<> {
    if (server().options.image_path.empty()) {
      return fail(ErrorKind::kInvalid, "which image? nbdkit ckpt [file=]IMAGE");
    }
    LocalOptions& options = server().options;
    if (options.volume.name.empty()) {
      options.volume.name = default_name(options.image_path);
    }
    return check_parameters(options);
  });
}

// What a debug flag asks for; nothing if it is not set.
TraceLine trace_line(int flag, const char* what) {
  if (flag == 0) {
    return nullptr;
  }
  return [what](const std::string& line) { nbdkit_debug("%s: %s", what, line.c_str()); };
}

int get_ready() noexcept {
  return report([]() -> Result<> {
    server().options.trace = {trace_line(ckpt_debug_ship, "ship"),
                              trace_line(ckpt_debug_store, "store")};
    CKPT_ASSIGN(server().local, LocalVolume::open(server().options));
    server().description = describe_export(volume().status().volume);
    if (const std::string note = server().local->space_note(); !note.empty()) {
      std::fprintf(stderr, "nbdkit: ckpt: note: %s\n", note.c_str());
    }
    return {};
  });
}

// Threads, rings and the control socket belong to the process that serves: nbdkit has forked by
// now.
int after_fork() noexcept {
  return report([]() -> Result<> {
    // A file system on this very disk may need us to free memory: never wait for it to.
    (void)prctl(PR_SET_IO_FLUSHER, 1, 0, 0, 0);
    open_phase_file();
    server().local->volume().set_uris(listening_uris());
    server().local->start_pumps();
    CKPT_ASSIGN(server().control, ControlServer::start(server().local->state_path(), volume()));
    return {};
  });
}

void cleanup() noexcept {
  (void)report([]() -> Result<> {
    if (server().local) {
      server().local->stop_waiting();
    }
    server().control.reset();
    Result<> outcome = server().local ? server().local->close() : Result<>();
    server().local.reset();
    return outcome;
  });
}

void dump_plugin() noexcept {
  (void)report([]() -> Result<> {
    CKPT_ASSIGN(const IoChoice io, choose_io(IoMode::kAuto, {.directory = "."}));
    std::printf("ckpt_version=%s\nckpt_io=%s\n", CKPT_VERSION, io.text.c_str());
    return {};
  });
}

void* open_connection(int) noexcept {
  Connection* connection = nullptr;
  (void)report([&]() -> Result<> {
    CKPT_ASSIGN(auto client, volume().gate().connect());
    connection = std::make_unique<Connection>(Connection{std::move(client)}).release();
    return {};
  });
  return connection;
}

void close_connection(void* handle) noexcept {
  const std::unique_ptr<Connection> connection(static_cast<Connection*>(handle));
  (void)report([&]() -> Result<> {
    volume().gate().disconnect(connection->client);
    return {};
  });
}

const char* export_description(void*) noexcept { return server().description.c_str(); }
int64_t get_size(void*) noexcept { return static_cast<int64_t>(volume().size_bytes()); }
int can_multi_conn(void*) noexcept { return server().options.volume.clients.multi_conn ? 1 : 0; }
int can_fua(void*) noexcept { return NBDKIT_FUA_NATIVE; }
int can_cache(void*) noexcept { return NBDKIT_CACHE_EMULATE; }

int pread(void* handle, void* buffer, uint32_t count, uint64_t offset, uint32_t) noexcept {
  return report([&] {
    return volume().read(client_of(handle), offset, {static_cast<std::byte*>(buffer), count});
  });
}

int pwrite(void* handle, const void* buffer, uint32_t count, uint64_t offset,
           uint32_t flags) noexcept {
  return report([&] {
    return volume().write(client_of(handle), offset, {static_cast<const std::byte*>(buffer), count},
                          (flags & NBDKIT_FLAG_FUA) != 0);
  });
}

int zero(void* handle, uint32_t count, uint64_t offset, uint32_t flags) noexcept {
  return report([&] {
    return volume().zero(client_of(handle), {offset, count}, (flags & NBDKIT_FLAG_MAY_TRIM) != 0,
                         (flags & NBDKIT_FLAG_FUA) != 0);
  });
}

int trim(void* handle, uint32_t count, uint64_t offset, uint32_t flags) noexcept {
  return report([&] {
    return volume().zero(client_of(handle), {offset, count}, true, (flags & NBDKIT_FLAG_FUA) != 0);
  });
}

int flush(void* handle, uint32_t) noexcept {
  return report([&] { return volume().flush(client_of(handle)); });
}

constexpr char kHelp[] =
    "[file=]IMAGE               the raw disk image or block device to serve (required)\n"
    "size=SIZE                  make IMAGE with this size if it is missing\n"
    "state=DIR                  state directory [IMAGE.ckpt]\n"
    "backup=embedded[:DIR]      keep the back-up here [in the state directory]\n"
    "backup=unix:PATH|HOST:PORT keep it with the backupd that listens there\n"
    "backup=none                keep none\n"
    "name=NAME                  what a backupd calls the volume [the file name of IMAGE]\n"
    "attachments=DIR            keep a copy of what processes are saved in there, too\n"
    "tls=off                    reach a back-up beyond this machine without TLS\n"
    "batch-bytes=SIZE           ship when so much has changed [4M]\n"
    "batch-delay=MS             ... or so long after a change [100]\n"
    "compress=zstd[:LEVEL]|none compression of what is shipped [zstd:1]\n"
    "io=auto|uring|sync         I/O engine [auto]\n"
    "direct=on|off              serve IMAGE past the page cache [off]\n"
    "checkpoint-interval=S      take a checkpoint every S seconds [0: on request only]\n"
    "preserve-limit=SIZE        of blocks overwritten before they were shipped [1G]\n"
    "multi-conn=on|off          let several connections write at once [off]\n"
    "takeover=fence|refuse      a second writer fences the first, or is refused [fence]\n"
    "start=alone|contact        contact: only serve once the back-up was reached, and agrees "
    "[alone]\n"
    "require-backup=on|off      writes fail while the back-up is not reached [off]\n"
    "confirm=store|relayed      relayed: a checkpoint is answered when a third machine has it "
    "[store]\n"
    "format=raw                 serve IMAGE even if it looks like qcow2, VMDK or VHDX";

nbdkit_plugin make_plugin() {
  nbdkit_plugin plugin{};
  plugin.name = "ckpt";
  plugin.longname = "ckpt: a disk that goes back in time";
  plugin.version = CKPT_VERSION;
  plugin.description = "Serves a disk with checkpoints and rollback";
  plugin.magic_config_key = "file";
  plugin.config_help = kHelp;
  plugin.dump_plugin = dump_plugin;
  plugin.config = config;
  plugin.config_complete = config_complete;
  plugin.get_ready = get_ready;
  plugin.after_fork = after_fork;
  plugin.cleanup = cleanup;
  plugin.open = open_connection;
  plugin.close = close_connection;
  plugin.export_description = export_description;
  plugin.get_size = get_size;
  plugin.can_multi_conn = can_multi_conn;
  plugin.can_fua = can_fua;
  plugin.can_cache = can_cache;
  plugin.pread = pread;
  plugin.pwrite = pwrite;
  plugin.zero = zero;
  plugin.trim = trim;
  plugin.flush = flush;
  return plugin;
}

}  // namespace
}  // namespace ckpt

namespace {
nbdkit_plugin plugin = ckpt::make_plugin();
}

NBDKIT_REGISTER_PLUGIN(plugin)
