// SPDX-License-Identifier: Apache-2.0
#include "tests/sim/server.h"

#include "common/bytes.h"
#include "common/checksum.h"

namespace ckpt::sim {
namespace {

constexpr SteadyTime kApplierSleep = std::chrono::seconds(1);

Result<std::unique_ptr<Store>> open_store_in(Directory& state, const VolumeRecord& record,
                                             const ServerOptions& options, const Clock& clock) {
  CKPT_ASSIGN(auto directory, state.subdirectory("store", true));
  CKPT_TRY(state.sync());
  StoreOptions store_options;
  store_options.volume = record.volume;
  store_options.size_bytes = record.size_bytes;
  store_options.address = "embedded:store";
  store_options.unapplied_bytes_max = options.unapplied_bytes_max;
  store_options.clock = &clock;
  return Store::open(std::move(directory), store_options);
}

std::unique_ptr<RemoteStore> remote_store(Machine& machine, const VolumeRecord& record,
                                          const ServerOptions& options) {
  RemoteOptions remote;
  remote.address.path = "/sim/backupd";
  remote.volume = record.volume;
  remote.size_bytes = record.size_bytes;
  remote.patience = options.dial_patience;
  remote.place = make_place(digest_of(as_bytes_of("the machine")), "sim", kImageName);
  return std::make_unique<RemoteStore>(
      remote, machine.scheduler.clock(),
      [&machine](const RemoteOptions& to) { return machine.network.connect(to.patience); });
}

Result<std::vector<std::byte>> read_all(StoreLink& store, uint64_t size_bytes) {
  std::vector<std::byte> content(size_bytes);
  CKPT_TRY(store.read_confirmed(0, content));
  return content;
}

std::unique_ptr<Directory> root_of(Machine& machine) {
  return observe(machine.disk.root(), machine.guard);
}

}  // namespace

Surroundings surroundings_of(Machine& machine, File& image, Directory& state) {
  return {image,
          state,
          machine.memory,
          machine.scheduler.clock(),
          machine.scheduler.random(),
          machine.boot_id,
          machine.boot_time()};
}

template <typename Call>
auto ObservedLink::over_link(const Call& call) -> decltype(call()) {
  SeededRandom& chance = scheduler_.choices();
  if (chance.one_in(lost_one_in_)) {
    scheduler_.event("link lost before");
    return fail(ErrorKind::kUnreachable, "the link was lost");
  }
  auto answer = call();
  if (answer && chance.one_in(lost_one_in_)) {
    scheduler_.event("link lost after");
    return fail(ErrorKind::kUnreachable, "the link was lost");
  }
  return answer;
}

Result<StoreGreeting> ObservedLink::begin_session() {
  return over_link([&] { return store_->begin_session(); });
}

Result<> ObservedLink::tell_forks(const std::vector<CheckpointId>& forks) {
  return over_link([&] { return store_->tell_forks(forks); });
}

Result<std::vector<BlockRange>> ObservedLink::stale(uint64_t from) {
  return over_link([&] { return store_->stale(from); });
}

Result<> ObservedLink::roll_back(const CheckpointId& from, const Uuid& to) {
  return over_link([&] { return store_->roll_back(from, to); });
}

Result<> ObservedLink::promote(const CheckpointId& from, const Uuid& to) {
  return over_link([&] { return store_->promote(from, to); });
}

Result<> ObservedLink::read_confirmed(uint64_t offset, ByteSpan buffer) {
  return over_link([&] { return store_->read_confirmed(offset, buffer); });
}

Result<std::optional<ByteRange>> ObservedLink::next_confirmed_data(uint64_t offset) {
  return over_link([&] { return store_->next_confirmed_data(offset); });
}

Result<> ObservedLink::read_ranges(std::span<const ByteRange> ranges, ContentSink& sink) {
  return over_link([&] { return store_->read_ranges(ranges, sink); });
}

Result<std::vector<Digest>> ObservedLink::digests(const DigestQuery& query) {
  return over_link([&] { return store_->digests(query); });
}

Result<> ObservedLink::accept(uint64_t incarnation) {
  return over_link([&] { return store_->accept(incarnation); });
}

Result<> ObservedLink::receive(const EncodedBatch& batch) {
  scheduler_.event("batch", "", batch.header.epoch.value, batch.header.data_bytes);
  return over_link([&] { return store_->receive(batch); });
}

Result<> ObservedLink::attach(Epoch epoch, uint32_t index, ConstByteSpan piece) {
  return over_link([&] { return store_->attach(epoch, index, piece); });
}

Result<> ObservedLink::confirm(const Confirmation& confirmation) {
  const uint64_t number = confirmation.checkpoint.id.number.value;
  scheduler_.event("confirm", "", number);
  observer_.on_answer("send CONFIRM", number);
  auto confirmed = over_link([&] { return store_->confirm(confirmation); });
  scheduler_.event(confirmed ? "confirmed" : "not confirmed", "", number);
  return confirmed;
}

Result<std::unique_ptr<Server>> Server::open(Machine& machine, const ServerOptions& options) {
  auto server = std::unique_ptr<Server>(new Server(machine, options));
  CKPT_TRY(server->open_files());
  CKPT_TRY(server->open_volume());
  return server;
}

Result<> Server::open_files() {
  root_ = root_of(machine_);
  CKPT_ASSIGN(image_, root_->open(kImageName, OpenMode::kReadWrite));
  CKPT_ASSIGN(state_, root_->subdirectory(kStateName, true));
  return root_->sync();
}

Result<> Server::open_volume() {
  CKPT_ASSIGN(volume_,
              Volume::open(
                  surroundings_of(machine_, *image_, *state_), options_.volume,
                  [this](const VolumeRecord& record) { return open_store(record); },
                  [this] { return store_ != nullptr && store_->free_reserve().has_value(); }));
  return {};
}

Result<StoreLink*> Server::open_store(const VolumeRecord& record) {
  if (options_.remote) {
    remote_ = remote_store(machine_, record, options_);
    link_.set_store(*remote_);
    return static_cast<StoreLink*>(&link_);
  }
  CKPT_ASSIGN(store_, open_store_in(*state_, record, options_, machine_.scheduler.clock()));
  store_->set_work_listener([this] { applier_.wake(); });
  link_.set_store(*store_);
  return static_cast<StoreLink*>(&link_);
}

void Server::start_pumps() {
  start_pump("ship", &Server::ship);
  start_pump("keep", &Server::keep);
  if (remote_ != nullptr) {
    start_pump("link", &Server::look_after_link);
  } else {
    start_pump("apply", &Server::apply);
  }
}

void Server::start_pump(const char* name, void (Server::*pump)()) {
  {
    const MutexLock lock(mutex_);
    ++pumps_;
  }
  machine_.scheduler.spawn(
      machine_.scheduler.process(), name,
      [this, pump] {
        (this->*pump)();
        const MutexLock lock(mutex_);
        --pumps_;
        ended_.notify_all();
      },
      FiberKind::kBackground);
}

void Server::ship() {
  while (!stopping_.load()) {
    if (!volume_->ship_step()) {
      volume_->wait_for_work();
    }
  }
}

void Server::keep() {
  while (!stopping_.load()) {
    if (!volume_->keep_step()) {
      keeper_.wait(options_.keeper_sleep);
    }
  }
}

void Server::apply() {
  while (!stopping_.load()) {
    if (store_->may_sync_later() && options_.pass_rest.count() > 0) {
      applier_.wait(options_.pass_rest);
    }
    if (!store_->has_work()) {
      applier_.wait(kApplierSleep);
    } else if (!store_->apply_some()) {
      applier_.wait(kApplierSleep);
    }
  }
}

void Server::look_after_link() {
  while (!stopping_.load()) {
    remote_->look_after();
  }
}

Result<> Server::close() {
  stopping_.store(true);
  if (remote_ != nullptr) {
    remote_->stop();
  }
  keeper_.wake();
  applier_.wake();
  volume_->wake();
  {
    const MutexLock lock(mutex_);
    while (pumps_ > 0) {
      ended_.wait(mutex_);
    }
  }
  return volume_->close();
}

// Without the losses by chance that a volume sees of an embedded one.
StoreLink& Server::store() {
  return remote_ != nullptr ? static_cast<StoreLink&>(*remote_) : *store_;
}

Result<std::vector<CheckpointInfo>> Server::checkpoints() { return store().checkpoints(); }

Result<std::vector<std::byte>> Server::read_backup() {
  return read_all(store(), volume_->size_bytes());
}

Result<bool> Server::is_applied() {
  if (remote_ == nullptr) {
    return !store_->has_work();
  }
  CKPT_ASSIGN(const StoreStatus found, remote_->ask());
  if (found.state == "failed") {
    return fail(ErrorKind::kIo, found.error);
  }
  return !found.confirmed || found.confirmed->id.number == found.applied;
}

bool Server::wait_applied() {
  for (;;) {
    const auto applied = is_applied();
    if (!applied || *applied) {
      return applied.has_value();
    }
    if (store_ != nullptr && store_->status().state == "failed") {
      return false;
    }
    machine_.scheduler.sleep(std::chrono::milliseconds(10));
  }
}

std::optional<std::vector<std::byte>> Server::backup_image() {
  return options_.remote
             ? machine_.backup_disk.cached(volume_->status().volume.to_string() + "/backup.img")
             : machine_.disk.cached("state/store/backup.img");
}

Result<Probe> probe(Machine& machine, const ServerOptions& options) {
  const std::unique_ptr<Directory> root = root_of(machine);
  CKPT_ASSIGN(const auto image, root->open(kImageName, OpenMode::kReadWrite));
  CKPT_ASSIGN(const auto state, root->subdirectory(kStateName, true));
  CKPT_ASSIGN(const StartedVolume started,
              start_volume(surroundings_of(machine, *image, *state), options.volume.start));
  std::unique_ptr<StoreLink> store;
  if (options.remote) {
    machine.network.wait_for_listener();
    store = remote_store(machine, started.record->get(), options);
  } else {
    CKPT_ASSIGN(store,
                open_store_in(*state, started.record->get(), options, machine.scheduler.clock()));
  }
  Probe found;
  const Geometry& geometry = started.disk->geometry;
  for (uint64_t block = 0; block < geometry.blocks(); ++block) {
    found.changed.push_back(started.disk->is_changed({block, block + 1}));
  }
  const auto kept = store->checkpoints();
  if (!kept) {
    // A back-up on another machine is made by the first session.
    const bool was_never_made = options.remote && kept.error().kind == ErrorKind::kNotFound;
    return was_never_made ? Result<Probe>(found) : Unexpected(kept.error());
  }
  if (!kept->empty()) {
    found.number = kept->back().id.number.value;
    CKPT_ASSIGN(found.backup, read_all(*store, geometry.size_bytes));
  }
  return found;
}

}  // namespace ckpt::sim
