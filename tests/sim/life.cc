// SPDX-License-Identifier: Apache-2.0
#include "tests/sim/life.h"

namespace ckpt::sim {
namespace {

using std::chrono::microseconds;
using std::chrono::milliseconds;
using std::chrono::seconds;

// Of a hundred requests: new content, the back-up's, zeroes, trims, flushes, reads.
constexpr uint64_t kRestore = 55;
constexpr uint64_t kZero = 62;
constexpr uint64_t kTrim = 74;
constexpr uint64_t kFlush = 84;
constexpr uint64_t kRead = 92;

}  // namespace

Life::Life(Machine& machine, History& history, const LifeOptions& options)
    : machine_(machine),
      history_(history),
      options_(options),
      plan_(options.plan),
      random_(SeededRandom(options.plan.seed).stream("life" + std::to_string(options.number))),
      quiet_(!options.last && !options.plan.is_scripted() &&
             random_.one_in(options.crashes ? 6 : 3)),
      undoing_(quiet_ && random_.one_in(2)) {}

void Life::report(const std::string& what) {
  if (!what.empty()) {
    machine_.scheduler.report_failure(what);
  }
}

void Life::end_if_killed() const {
  if (machine_.scheduler.dying()) {
    sim_point();
  }
}

std::vector<Version> Life::primary() const {
  return read_versions(0, machine_.disk.cached(kImageName).value());
}

// Whether checkpoints may be void although nothing failed.
bool Life::may_void() const {
  return options_.errors || (plan_.short_timeouts && !options_.last) ||
         plan_.server.volume.start.preserve.total_bytes < (1U << 20U);
}

void Life::run() {
  if (!open()) {
    ended_ = true;
    return;
  }
  server_->start_pumps();
  machine_.guard.set_serving(true);
  connect();
  serve();
  if (!stuck_ && !quiet_ && (options_.last || (!plan_.is_scripted() && random_.one_in(2)))) {
    settle();
  }
  if (plan_.long_pauses && !options_.last && (undoing_ || random_.one_in(2))) {
    // Long enough for regions to be unmarked.
    machine_.scheduler.sleep(seconds(random_.between(10, 40)));
  }
  if (!stuck_ && random_.one_in(2)) {
    disconnect();
    auto closed = server_->close();
    end_if_killed();
    expect(closed || options_.errors,
           "the server did not stop cleanly: " + (closed ? "" : closed.error().message()));
    closed_ = closed.has_value();
  }
  ended_ = true;
}

bool Life::open() {
  ServerOptions options = plan_.server;
  options.link_lost_one_in = options_.errors ? options.link_lost_one_in : 0;
  if (options.remote && !options_.errors) {
    machine_.network.wait_for_listener();
  }
  auto server = Server::open(machine_, options);
  end_if_killed();
  if (!server) {
    expect(options_.errors, "the server did not start: " + server.error().message());
    return false;
  }
  server_ = std::move(*server);
  history_.oracle.synced_all();
  find_rollback();
  if (server_->volume().status().state == "fenced") {
    auto accepted = server_->volume().accept();
    end_if_killed();
    if (!accepted) {
      expect(options_.errors, "accept: " + accepted.error().message());
      return false;
    }
  }
  check_backup();
  return true;
}

// A rollback that a crash interrupted has been finished by the start, or never began.
void Life::find_rollback() {
  const Uuid timeline = server_->volume().status().timeline;
  const bool first = history_.timeline.is_nil();
  if (!first && timeline != history_.timeline) {
    expect(history_.oracle.rolling_back(), "the timeline changed without a rollback");
    history_.probes.hit("rollback finished by a start");
    expect_restored(history_.oracle.check_rolled_back(primary()));
    history_.oracle.end_rollback();
  } else if (history_.oracle.rolling_back()) {
    history_.probes.hit("rollback never began");
    history_.oracle.cancel_rollback();
  }
  history_.timeline = timeline;
  history_.volume = server_->volume().status().volume;
}

void Life::start_worker(const std::string& name, std::function<void()> work) {
  {
    const MutexLock lock(mutex_);
    ++workers_;
  }
  machine_.scheduler.spawn(machine_.scheduler.process(), name, [this, work = std::move(work)] {
    work();
    const MutexLock lock(mutex_);
    --workers_;
    changed_.notify_all();
  });
}

void Life::serve() {
  if (plan_.is_scripted()) {
    start_worker("script", [this] { run_script(); });
    wait_for_workers();
    return;
  }
  for (uint32_t writer = 0; writer < plan_.writers; ++writer) {
    start_worker("writer" + std::to_string(writer), [this, writer] { write_requests(writer); });
  }
  if (!quiet_) {
    start_worker("control", [this] { control(); });
  }
  if (plan_.exports > 0) {
    start_worker("export", [this] { export_disk(); });
  }
  wait_for_workers();
}

void Life::wait_for_workers() {
  const MutexLock lock(mutex_);
  while (workers_ > 0) {
    changed_.wait(mutex_);
  }
}

// Nothing is in flight: a checkpoint must make both sides equal.
void Life::settle() {
  report(history_.oracle.check_primary(primary()));
  bool done = checkpoint(!history_.image_suspect);
  if (!done && options_.last) {
    // After a failed sync of the image only a rollback makes it trustworthy again.
    roll_back();
    done = checkpoint(true);
  }
  if (done) {
    check_settled();
  }
}

void Life::check_settled() {
  if (!check_backup()) {
    return;
  }
  const std::string wrong = history_.oracle.check_equal(primary(), history_.oracle.last_backup());
  expect(wrong.empty(), "O5: after a checkpoint without writes since, " + wrong);
  if (!server_->wait_applied()) {
    return;
  }
  end_if_killed();
  const auto image = server_->backup_image();
  expect(image.has_value(), "O5: there is no back-up image");
  const std::string differs =
      history_.oracle.check_equal(primary(), read_versions(0, image.value()));
  expect(differs.empty(), "O5: the applied back-up image: " + differs);
  history_.probes.hit("settled");
}

// ---- writers

void Life::connect() {
  clients_.clear();
  for (uint32_t writer = 0; writer < plan_.writers; ++writer) {
    if (writer > 0 && !plan_.own_connections) {
      clients_.push_back(clients_.front());
      continue;
    }
    auto client = server_->volume().gate().connect();
    end_if_killed();
    if (!client) {
      report("a client was refused: " + client.error().message());
      return;
    }
    clients_.push_back(*client);
  }
}

void Life::disconnect() {
  for (const ClientPtr& client : clients_) {
    server_->volume().gate().disconnect(client);
  }
  clients_.clear();
}

void Life::enter_request() {
  const MutexLock lock(mutex_);
  while (paused_) {
    changed_.wait(mutex_);
  }
  ++requests_;
}

void Life::leave_request() {
  const MutexLock lock(mutex_);
  --requests_;
  changed_.notify_all();
}

void Life::pause_requests() {
  const MutexLock lock(mutex_);
  paused_ = true;
  while (requests_ > 0) {
    changed_.wait(mutex_);
  }
}

void Life::resume_requests() {
  const MutexLock lock(mutex_);
  paused_ = false;
  changed_.notify_all();
}

void Life::write_requests(uint32_t writer) {
  SeededRandom random = random_.stream("writer" + std::to_string(writer));
  const uint64_t count = random.between(1, quiet_ ? 3 : plan_.requests);
  for (uint64_t i = 0; i < count && !stuck_; ++i) {
    enter_request();
    one_request(writer, random);
    leave_request();
    if (plan_.long_pauses && random.one_in(8)) {
      machine_.scheduler.sleep(seconds(random.between(1, 12)));
    } else if (random.one_in(3)) {
      machine_.scheduler.sleep(microseconds(random.below(plan_.crowded ? 100 : 3000)));
    }
  }
}

void Life::one_request(uint32_t writer, SeededRandom& random) {
  if (writer >= clients_.size()) {
    return;  // a rollback could not let clients in again
  }
  const ClientPtr client = clients_[writer];
  const uint64_t kind = random.below(100);
  const SectorRange undone = undoing_ ? changed_range() : SectorRange{};
  if (undone.end != 0) {
    do_change(*client, random, undone, kRestore);
  } else if (kind < kFlush) {
    do_change(*client, random, draw_range(random), kind);
  } else if (kind < kRead) {
    do_flush(*client);
  } else {
    do_read(*client, random);
  }
}

SectorRange Life::draw_range(SeededRandom& random) const {
  const uint64_t sectors = plan_.size_bytes / kSector;
  uint64_t first = random.below(sectors);
  if (!random.one_in(4)) {
    // In the middle of the disk, over the boundary of two regions as well.
    const uint64_t hot = (plan_.size_bytes / kBlockBytes / 2) - plan_.hot_blocks / 2;
    first = hot * (kBlockBytes / kSector) + random.below(plan_.hot_blocks * kBlockBytes / kSector);
  }
  const uint64_t most = plan_.crowded ? 4 : random.one_in(8) ? 300 : random.one_in(3) ? 40 : 8;
  uint64_t end = first + random.between(1, most);
  if (random.one_in(3)) {
    // Whole blocks.
    first = first / 8 * 8;
    end = (end + 7) / 8 * 8;
  }
  return {first, std::min(end, sectors)};
}

RequestPtr Life::begin_change(SectorRange range, uint64_t kind) {
  if (kind >= kZero) {
    return history_.oracle.begin_zero(range);
  }
  return kind >= kRestore ? history_.oracle.begin_restore(range)
                          : history_.oracle.begin_write(range);
}

// From the first to the last sector that the last checkpoint has otherwise.
SectorRange Life::changed_range() const {
  const std::vector<Version> now = primary();
  const std::vector<Version>& then = history_.oracle.last_backup();
  SectorRange range;
  for (uint64_t sector = 0; sector < then.size(); ++sector) {
    if (now[sector] != then[sector]) {
      range = {range.end == 0 ? sector : range.first, sector + 1};
    }
  }
  return range;
}

void Life::do_change(Client& client, SeededRandom& random, SectorRange range, uint64_t kind) {
  Volume& volume = server_->volume();
  const bool fua = random.one_in(12);
  const uint64_t offset = range.first * kSector;
  const RequestPtr request = begin_change(range, kind);
  machine_.scheduler.event(kind >= kZero ? "> zero" : "> write", "", range.first, range.end);
  const Result<> done =
      kind >= kZero
          ? volume.zero(client, {offset, range.bytes()}, kind >= kTrim, fua)
          : volume.write(client, offset, make_sectors(range.first, request->versions), fua);
  end_if_killed();
  machine_.scheduler.event(done ? "< done" : "< failed", "", request->number);
  history_.oracle.end(request, done.has_value(), fua);
  expect(done || options_.disk_errors || done.error().kind == ErrorKind::kFenced,
         "P15: a write failed: " + (done ? "" : done.error().message()));
}

void Life::do_flush(Client& client) {
  const Moment issued = history_.oracle.begin_flush();
  auto done = server_->volume().flush(client);
  end_if_killed();
  machine_.scheduler.event(done ? "< flushed" : "< not flushed");
  if (done) {
    history_.oracle.end_flush(issued);
  }
  expect(done || options_.disk_errors || done.error().kind == ErrorKind::kFenced,
         "a flush failed: " + (done ? "" : done.error().message()));
}

void Life::do_read(Client& client, SeededRandom& random) {
  const SectorRange range = draw_range(random);
  const size_t era = history_.oracle.era();
  const Moment issued = history_.oracle.begin_read();
  std::vector<std::byte> buffer(range.bytes());
  auto done = server_->volume().read(client, range.first * kSector, buffer);
  end_if_killed();
  if (done && !history_.oracle.rolling_back() && era == history_.oracle.era()) {
    report(history_.oracle.end_read(issued, range.first, read_versions(range.first, buffer)));
  }
  expect(done || options_.disk_errors || done.error().kind == ErrorKind::kFenced,
         "a read failed: " + (done ? "" : done.error().message()));
}

// ---- a history

// In the last life: back to the checkpoint, if there is one.
void Life::run_script() {
  if (options_.last) {
    roll_back();
    return;
  }
  SeededRandom random = random_.stream("script");
  for (const Act act : plan_.script) {
    history_.last_act_at = machine_.scheduler.steps();
    if (!stuck_) {
      do_act(act, random);
    }
  }
  // The pumps have nothing to do any more.
  machine_.scheduler.sleep(milliseconds(300));
  history_.script_ended_at = machine_.scheduler.steps();
}

void Life::do_act(Act act, SeededRandom& random) {
  const ClientPtr client = clients_.front();
  switch (act) {
    case Act::kWrite: do_change(*client, random, {5, 20}, 0); break;
    case Act::kOverlap: do_change(*client, random, {12, 30}, 0); break;
    case Act::kFlush: do_flush(*client); break;
    case Act::kCheckpoint: checkpoint(false); break;
    case Act::kRollBack: roll_back(); break;
    case Act::kReconnect:
      disconnect();
      connect();
      break;
  }
}

}  // namespace ckpt::sim
