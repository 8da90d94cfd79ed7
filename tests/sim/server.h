// SPDX-License-Identifier: Apache-2.0
// One run of the server in the simulation: a volume, with its store embedded or behind backupd on
// another machine, wired as the plugin does it (plugin/local_volume.cc), with fibers for its
// threads.
#pragma once

#include <atomic>
#include <memory>

#include "backupd/store/store.h"
#include "common/remote_store.h"
#include "plugin/volume.h"
#include "tests/sim/sim_disk.h"
#include "tests/sim/sim_memory.h"
#include "tests/sim/sim_network.h"
#include "tests/sim/volume_guard.h"

namespace ckpt::sim {

inline constexpr char kImageName[] = "image";
inline constexpr char kStateName[] = "state";

// What survives a server: the machine that it runs on.
struct Machine {
  Scheduler& scheduler;
  SimDisk& disk;
  SimMemory& memory;
  VolumeGuard& guard;
  SimNetwork& network;  // to the back-up's
  SimDisk& backup_disk;
  std::string boot_id;
  SteadyTime booted_at{};
  // By the wall clock of now, as the product finds it.
  [[nodiscard]] WallTime boot_time() const {
    return scheduler.clock().wall() - (scheduler.now() - booted_at);
  }
};

// The store as a volume sees it: observed, and (as if a link lay between) lost by chance, before a
// call reaches it or after.
class ObservedLink final : public StoreLink {
 public:
  ObservedLink(Scheduler& scheduler, IoObserver& observer, uint64_t lost_one_in)
      : scheduler_(scheduler), observer_(observer), lost_one_in_(lost_one_in) {}
  void set_store(StoreLink& store) { store_ = &store; }

  Result<StoreGreeting> begin_session() override;
  Result<std::vector<BlockRange>> stale(uint64_t from) override;
  Result<> accept(uint64_t incarnation) override;
  Result<> tell_forks(const std::vector<CheckpointId>& forks) override;
  Result<> receive(const EncodedBatch& batch) override;
  Result<> attach(Epoch epoch, uint32_t index, ConstByteSpan piece) override;
  Result<> confirm(const Confirmation& confirmation) override;
  Result<> roll_back(const CheckpointId& from, const Uuid& to) override;
  Result<> check_promotes() override { return store_->check_promotes(); }
  Result<> promote(const CheckpointId& from, const Uuid& to) override;
  Result<> read_confirmed(uint64_t offset, ByteSpan buffer) override;
  Result<std::optional<ByteRange>> next_confirmed_data(uint64_t offset) override;
  Result<> read_ranges(std::span<const ByteRange> ranges, ContentSink& sink) override;
  Result<std::vector<Digest>> digests(const DigestQuery& query) override;
  Result<> export_checkpoint(std::optional<Epoch> number, ExportSink& sink) override {
    return store_->export_checkpoint(number, sink);
  }
  Result<> read_attachment(Epoch number, const std::string& name, PieceSink& sink) override {
    return store_->read_attachment(number, name, sink);
  }
  Result<std::vector<CheckpointInfo>> checkpoints() override { return store_->checkpoints(); }
  StoreStatus status() override { return store_->status(); }
  [[nodiscard]] Result<> check_link() override { return store_->check_link(); }

 private:
  template <typename Call>
  auto over_link(const Call& call) -> decltype(call());

  Scheduler& scheduler_;
  IoObserver& observer_;
  uint64_t lost_one_in_;
  StoreLink* store_ = nullptr;  // outlives this
};

// What a volume of that machine lives on.
Surroundings surroundings_of(Machine& machine, File& image, Directory& state);

struct ServerOptions {
  VolumeOptions volume;
  uint64_t unapplied_bytes_max = uint64_t{1} << 30U;
  SteadyTime keeper_sleep = std::chrono::milliseconds(5);
  SteadyTime pass_rest{};  // how long a pass of the applier stays open when it has only to sync
  uint64_t link_lost_one_in = 0;  // of the calls to an embedded store; 0: never
  bool remote = false;            // the store is behind backupd
  std::chrono::milliseconds dial_patience{300};
};

// Lifetime: made in a fiber of its process by open(); destroyed there, or from outside after the
// process
//           was killed.
class Server {
 public:
  static Result<std::unique_ptr<Server>> open(Machine& machine, const ServerOptions& options);
  // Fibers of the calling fiber's process.
  void start_pumps();
  // As the plugin does it: ends the pumps, stops the volume. No request or command may be under
  // way.
  Result<> close();
  Volume& volume() { return *volume_; }
  // What the store keeps.
  Result<std::vector<CheckpointInfo>> checkpoints();
  // The whole disk at the last confirmed checkpoint.
  Result<std::vector<std::byte>> read_backup();
  // Waits until all that is confirmed is applied. False: the store has failed, or cannot be asked.
  bool wait_applied();
  // The back-up image as it is.
  [[nodiscard]] std::optional<std::vector<std::byte>> backup_image();

 private:
  Server(Machine& machine, const ServerOptions& options)
      : machine_(machine),
        options_(options),
        link_(machine.scheduler, machine.guard, options.link_lost_one_in) {}
  Result<> open_files();
  Result<> open_volume();
  Result<StoreLink*> open_store(const VolumeRecord& record);
  [[nodiscard]] StoreLink& store();
  Result<bool> is_applied();
  void start_pump(const char* name, void (Server::*pump)());
  void ship();
  void keep();
  void apply();
  void look_after_link();

  Machine& machine_;  // outlives every server
  ServerOptions options_;
  std::unique_ptr<Directory> root_;
  std::unique_ptr<Directory> state_;
  std::unique_ptr<File> image_;
  std::unique_ptr<Store> store_;  // one of the two
  std::unique_ptr<RemoteStore> remote_;
  ObservedLink link_;
  std::unique_ptr<Volume> volume_;
  std::atomic<bool> stopping_{false};
  Waker keeper_;
  Waker applier_;
  Mutex mutex_;
  CondVar ended_;
  int pumps_ CKPT_GUARDED_BY(mutex_) = 0;
};

// Opens the state as a start does, and the store as its recovery does, without serving anything:
// which blocks count as changed, and what the back-up holds.
struct Probe {
  std::vector<bool> changed;      // a block each
  std::vector<std::byte> backup;  // empty: no checkpoint
  uint64_t number = 0;            // of that checkpoint
};
Result<Probe> probe(Machine& machine, const ServerOptions& options);

}  // namespace ckpt::sim
