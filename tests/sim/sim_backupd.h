// SPDX-License-Identifier: Apache-2.0
// A run of backupd in the simulation: stores on a machine of its own, and the connections that
// reach them, wired as backupd does it (backupd/shelf.cc, backupd/server.cc), with fibers for its
// threads.
#pragma once

#include <list>
#include <map>
#include <memory>

#include "backupd/connection.h"
#include "backupd/relay.h"
#include "common/remote_store.h"
#include "tests/sim/guard.h"
#include "tests/sim/sim_disk.h"
#include "tests/sim/sim_network.h"

namespace ckpt::sim {

struct BackupdOptions {
  uint64_t unapplied_bytes_max = uint64_t{1} << 30U;
  SteadyTime pass_rest{};  // how long a pass of the applier stays open when it has only to sync
  std::chrono::milliseconds silence{15000};
  uint64_t window_bytes = uint64_t{16} << 20U;
  SimNetwork* further = nullptr;  // to where checkpoints are passed on; nothing: nowhere
  uint64_t relay_queue_bytes = kRelayQueueBytesMax;
};

// What survives a daemon: the machine that it runs on.
struct BackupMachine {
  Scheduler& scheduler;
  SimDisk& disk;
  IoGuard& guard;
  SimNetwork& network;
};

// Lifetime: from outside of fibers, until its process was killed.
class SimBackupd final : public VolumeShelf {
 public:
  SimBackupd(BackupMachine& machine, const BackupdOptions& options)
      : machine_(machine), options_(options) {}

  // Its main fiber, in the background: opens what is there, and serves until it is killed.
  void run();
  Result<std::shared_ptr<ServedVolume>> find(const Hello& hello, bool may_make) override;
  // Nobody calls a volume anything here.
  std::vector<NamedVolume> volumes() override { return {}; }
  Result<> set_name(const Uuid&, const std::string&) override { return {}; }
  // Nor asks for one: this is no program's folder.
  Result<> release(const Uuid&, bool) override { return fail(ErrorKind::kNotFound, "release"); }
  void take_back(const Uuid&) override {}

 private:
  struct Served {
    Served(std::unique_ptr<Stream> client, VolumeShelf& shelf, ConnectionOptions options)
        : stream(std::move(client)), connection(*stream, shelf, std::move(options)) {}
    const std::unique_ptr<Stream> stream;
    Connection connection;
  };

  void open_all();
  Result<std::shared_ptr<ServedVolume>> open_store(const std::string& name, const Uuid& volume,
                                                   std::optional<uint64_t> size_bytes);
  void apply(Store& store, Waker& waker);
  void start_relay(const std::shared_ptr<ServedVolume>& served, Waker& waker);
  void relay(const std::shared_ptr<ServedVolume>& served, Waker& waker);
  void serve(const std::shared_ptr<Served>& served);
  void herald();

  BackupMachine& machine_;  // outlives every daemon
  const BackupdOptions options_;
  std::unique_ptr<Directory> root_;
  std::map<Uuid, std::shared_ptr<ServedVolume>> volumes_;
  std::list<Waker> wakers_;
  std::list<RemoteStore> further_;
  std::list<Relay> relays_;  // from the stores above to those
  Mutex opening_;
  std::list<std::shared_ptr<Served>> served_;
  std::string problem_;  // why a store could not be opened
};

}  // namespace ckpt::sim
