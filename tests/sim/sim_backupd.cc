// SPDX-License-Identifier: Apache-2.0
#include "tests/sim/sim_backupd.h"

#include "backupd/store/volume_file.h"
#include "common/bytes.h"
#include "common/checksum.h"

namespace ckpt::sim {
namespace {

constexpr SteadyTime kStoreSleep = std::chrono::seconds(1);
constexpr SteadyTime kAcceptWait = std::chrono::hours(1);

}  // namespace

void SimBackupd::run() {
  root_ = observe(machine_.disk.root(), machine_.guard);
  open_all();
  machine_.scheduler.spawn(
      machine_.scheduler.process(), "herald", [this] { herald(); }, FiberKind::kBackground);
  machine_.network.listen();
  for (;;) {
    std::unique_ptr<Stream> stream = machine_.network.accept(kAcceptWait);
    if (stream == nullptr) {
      continue;
    }
    stream->set_silence(options_.silence);
    auto served = std::make_shared<Served>(
        std::move(stream), *this,
        ConnectionOptions{.number = machine_.scheduler.random().next() | 1U,
                          .silence = options_.silence,
                          .window_bytes = options_.window_bytes,
                          .software = "simulated",
                          .peer = "",
                          .access = nullptr});
    served_.push_back(served);
    machine_.scheduler.spawn(
        machine_.scheduler.process(), "serve", [this, served] { serve(served); },
        FiberKind::kBackground);
  }
}

void SimBackupd::serve(const std::shared_ptr<Served>& served) {
  Connection& connection = served->connection;
  auto outcome = connection.greet();
  while (outcome) {
    outcome = connection.step();
  }
  machine_.scheduler.event("connection over");
  connection.leave();
  served->stream->shut_down();
  served_.remove(served);
}

void SimBackupd::herald() {
  for (;;) {
    machine_.scheduler.sleep(options_.silence / 6);
    const std::list<std::shared_ptr<Served>> all = served_;
    for (const std::shared_ptr<Served>& served : all) {
      served->connection.herald(machine_.scheduler.now());
    }
  }
}

// ---- volumes

void SimBackupd::open_all() {
  const auto names = root_->list();
  for (const std::string& name : names ? *names : std::vector<std::string>()) {
    if (const auto volume = Uuid::parse(name)) {
      auto opened = open_store(name, *volume, std::nullopt);
      const bool was_made = opened || opened.error().kind != ErrorKind::kNotFound;
      problem_ = opened || !was_made ? "" : opened.error().message();
    }
  }
}

// size_bytes: of one that may be made; nothing: it is there.
Result<std::shared_ptr<ServedVolume>> SimBackupd::open_store(const std::string& name,
                                                             const Uuid& volume,
                                                             std::optional<uint64_t> size_bytes) {
  CKPT_ASSIGN(auto folder, root_->subdirectory(name, size_bytes.has_value()));
  StoreOptions options;
  options.volume = volume;
  options.address = name;
  options.unapplied_bytes_max = options_.unapplied_bytes_max;
  options.clock = &machine_.scheduler.clock();
  CKPT_ASSIGN(options.size_bytes, VolumeFile::size_of_disk(*folder, size_bytes));
  CKPT_ASSIGN(auto store, Store::open(std::move(folder), options));
  CKPT_TRY(root_->sync());
  Waker& waker = wakers_.emplace_back();
  Waker& relay_waker = wakers_.emplace_back();
  store->set_work_listener([&waker, &relay_waker] {
    waker.wake();
    relay_waker.wake();
  });
  auto served = std::make_shared<ServedVolume>(std::move(store), options.size_bytes);
  machine_.scheduler.spawn(
      machine_.scheduler.process(), "apply",
      [this, served, &waker] { apply(served->store(), waker); }, FiberKind::kBackground);
  start_relay(served, relay_waker);
  return volumes_.insert_or_assign(volume, std::move(served)).first->second;
}

Result<std::shared_ptr<ServedVolume>> SimBackupd::find(const Hello& hello, bool /*may_make*/) {
  const MutexLock lock(opening_);
  const auto found = volumes_.find(hello.volume);
  std::shared_ptr<ServedVolume> volume = found == volumes_.end() ? nullptr : found->second;
  if (volume == nullptr) {
    if (!problem_.empty()) {
      return fail(ErrorKind::kCorrupt, problem_);
    }
    if (hello.role != Role::kSession) {
      return fail(ErrorKind::kNotFound, "there is no such volume here");
    }
    CKPT_ASSIGN(volume, open_store(hello.volume.to_string(), hello.volume, hello.size_bytes));
  }
  return hello.size_bytes != 0 && hello.size_bytes != volume->size_bytes()
             ? fail(ErrorKind::kInvalid, "of another size")
             : Result<std::shared_ptr<ServedVolume>>(volume);
}

void SimBackupd::start_relay(const std::shared_ptr<ServedVolume>& served, Waker& waker) {
  if (options_.further != nullptr) {
    machine_.scheduler.spawn(
        machine_.scheduler.process(), "relay", [this, served, &waker] { relay(served, waker); },
        FiberKind::kBackground);
  }
}

// As backupd/relay_pump.cc does it.
void SimBackupd::relay(const std::shared_ptr<ServedVolume>& served, Waker& waker) {
  Store& store = served->store();
  while (!store.record().last) {
    waker.wait(kStoreSleep);
  }
  const StoreRecord record = store.record();
  RemoteOptions remote;
  remote.address.path = "/sim/further";
  remote.volume = record.volume;
  remote.size_bytes = record.size_bytes;
  remote.patience = std::chrono::milliseconds(300);
  remote.place = make_place(digest_of(as_bytes_of("the back-up")), "sim", "backup.img");
  RemoteStore& further = further_.emplace_back(
      remote, machine_.scheduler.clock(),
      [this](const RemoteOptions& to) { return options_.further->connect(to.patience); });
  Relay& relay = relays_.emplace_back(store, further, options_.relay_queue_bytes);
  for (;;) {
    further.look();
    if (const auto passed = relay.step(); !passed || !*passed) {
      waker.wait(kStoreSleep);
    }
  }
}

void SimBackupd::apply(Store& store, Waker& waker) {
  for (;;) {
    if (store.may_sync_later() && options_.pass_rest.count() > 0) {
      waker.wait(options_.pass_rest);
    }
    if (!store.has_work() || !store.apply_some()) {
      waker.wait(kStoreSleep);
    }
  }
}

}  // namespace ckpt::sim
