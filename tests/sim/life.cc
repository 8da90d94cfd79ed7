// SPDX-License-Identifier: Apache-2.0
#include "tests/sim/life.h"

#include "tests/sim/attachments.h"
#include "tests/sim/sim_export.h"

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

bool never_stop(uint64_t /*done*/, uint64_t /*total*/) { return true; }

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

// ---- control

void Life::control() {
  for (uint32_t i = 0; i < plan_.controls && !stuck_; ++i) {
    machine_.scheduler.sleep(microseconds(random_.below(plan_.crowded ? 500 : 20000)));
    if (random_.one_in(plan_.rollback_one_in)) {
      roll_back();
    } else if (random_.one_in(6)) {
      check_verify();
    } else {
      checkpoint(false);
    }
  }
}

// Whether there is a new one now.
bool Life::checkpoint(bool must) {
  const std::string name = "c" + std::to_string(++history_.checkpoints);
  CheckpointRequest request{.name = name, .message = "", .timeout = seconds(60)};
  if (plan_.short_timeouts && !options_.last && random_.one_in(3)) {
    // A checkpoint takes a millisecond, as a rule.
    request.timeout = milliseconds(random_.below(random_.one_in(2) ? 3 : 30));
  }
  const bool breaks_off = !must && random_.one_in(10);
  if (plan_.attachments) {
    request.attachments = bring_attachments(machine_.scheduler, name, breaks_off);
  }
  history_.oracle.begin_checkpoint(name);
  machine_.scheduler.event("> checkpoint", "", history_.checkpoints);
  auto made = server_->volume().checkpoint(request);
  end_if_killed();
  if (request.attachments != nullptr) {
    request.attachments->stop();
  }
  if (made) {
    const uint64_t number = made->checkpoint.id.number.value;
    machine_.scheduler.event("< checkpoint", "", number);
    report(history_.oracle.end_checkpoint(name, number));
    history_.probes.hit("checkpoint");
    if (random_.one_in(2)) {
      check_backup();
    }
    return true;
  }
  const bool unknown = made.error().kind == ErrorKind::kTimeout;
  machine_.scheduler.event(unknown ? "< checkpoint?" : "< no checkpoint", "", history_.checkpoints);
  history_.oracle.end_checkpoint(name, unknown ? Existence::kUnknown : Existence::kVoid);
  history_.probes.hit(unknown ? "checkpoint of unknown outcome" : "void checkpoint");
  expect((may_void() && !(must && options_.last)) || history_.image_suspect ||
             (breaks_off && request.attachments != nullptr),
         "O8: no checkpoint: " + made.error().message());
  return false;
}

// False: there is nothing to compare, or it could not be read.
bool Life::check_backup() {
  auto kept = server_->checkpoints();
  end_if_killed();
  if (!kept || kept->empty()) {
    expect(kept || options_.errors, "the store's checkpoints cannot be listed");
    report(kept ? history_.oracle.check_no_backup() : "");
    return false;
  }
  auto content = server_->read_backup();
  end_if_killed();
  auto again = server_->checkpoints();
  end_if_killed();
  if (!content || !again || again->back().id.number != kept->back().id.number) {
    expect(content || options_.errors, "the back-up cannot be read");
    return false;
  }
  const CheckpointInfo& last = kept->back();
  report(history_.oracle.check_backup(last.name, last.id.number.value, read_versions(0, *content)));
  if (plan_.attachments) {
    check_attachments(last);
  }
  return true;
}

// They are part of their checkpoint: all of them, whole, or there is no checkpoint.
void Life::check_attachments(const CheckpointInfo& checkpoint) {
  const std::string number = std::to_string(checkpoint.id.number.value);
  const std::vector<std::string> names = attachment_names(checkpoint.name);
  expect(checkpoint.attachments.size() == names.size(),
         "checkpoint " + number + " has " + std::to_string(checkpoint.attachments.size()) +
             " attachments, not " + std::to_string(names.size()));
  for (const std::string& name : names) {
    ReadAttachment read;
    auto done = server_->volume().read_attachment(number, name, read);
    end_if_killed();
    // (Another checkpoint may have come to exist.)
    expect(done || options_.errors || done.error().kind == ErrorKind::kNotFound,
           "attachment " + name + " cannot be read: " + (done ? "" : done.error().message()));
    expect(!done || read.content() == attachment_content(checkpoint.name, name),
           "attachment " + name + " of checkpoint " + number + " is not what was brought");
    history_.probes.hit("attachment", done ? 1 : 0);
  }
}

void Life::check_verify() {
  auto verified = server_->volume().verify(never_stop);
  end_if_killed();
  if (verified) {
    history_.probes.hit("verify");
    expect(verified->mismatched_bytes == 0,
           "verify: " + std::to_string(verified->mismatched_bytes) +
               " bytes differ that do not count as changed");
  } else {
    expect(options_.errors || verified.error().kind == ErrorKind::kNotFound,
           "verify failed: " + verified.error().message());
  }
}

void Life::export_disk() {
  SeededRandom random = random_.stream("export");
  for (uint32_t i = 0; i < plan_.exports && !stuck_; ++i) {
    machine_.scheduler.sleep(microseconds(random.below(20000)));
    one_export(random.stream(std::to_string(i)));
  }
}

// Beside all else; it may end the export, but not make it wrong.
void Life::one_export(const SeededRandom& random) {
  SimExport sink(machine_.scheduler, random, plan_.size_bytes);
  const uint64_t least = history_.oracle.last_answered();
  machine_.scheduler.event("> export", "", least);
  auto done = server_->volume().export_checkpoint("last", sink);
  end_if_killed();
  machine_.scheduler.event(done ? "< exported" : "< not exported", "",
                           sink.checkpoint().id.number.value);
  if (!done) {
    const ErrorKind kind = done.error().kind;
    history_.probes.hit(kind == ErrorKind::kBusy ? "export ended" : "no export");
    expect(
        options_.errors || kind == ErrorKind::kBusy || (kind == ErrorKind::kNotFound && least == 0),
        "an export failed: " + done.error().message());
    return;
  }
  const CheckpointInfo& of = sink.checkpoint();
  report(sink.check_whole());
  report(history_.oracle.check_export(least, of.name, of.id.number.value,
                                      read_versions(0, sink.content())));
  history_.probes.hit(of.id.number.value < history_.oracle.last_answered() ? "export of one before"
                                                                           : "export");
}

void Life::roll_back() {
  if (!check_backup()) {
    return;
  }
  const auto policy = static_cast<ClientPolicy>(random_.below(3));
  const bool quiet = policy == ClientPolicy::kRefuse || random_.one_in(2);
  if (quiet) {
    pause_requests();
  }
  if (policy == ClientPolicy::kRefuse) {
    disconnect();
  }
  history_.oracle.begin_rollback();
  machine_.guard.set_serving(false);
  machine_.scheduler.event("> rollback", "", history_.oracle.last_number());
  auto outcome = server_->volume().roll_back({.checkpoint = "last", .clients = policy}, never_stop);
  end_if_killed();
  machine_.guard.set_serving(true);
  if (!after_roll_back(outcome, quiet)) {
    stuck_ = true;
  }
  if (!stuck_ && policy != ClientPolicy::kKeep) {
    auto accepted = server_->volume().accept();
    end_if_killed();
    expect(accepted || options_.errors, "accept failed");
    stuck_ = !accepted;
    if (accepted && (outcome || policy == ClientPolicy::kRefuse)) {
      connect();
    }
  }
  if (stuck_) {
    machine_.scheduler.stop();
  }
  resume_requests();
}

// False: it stopped half-way.
bool Life::after_roll_back(const Result<RollbackOutcome>& outcome, bool quiet) {
  const Uuid timeline = server_->volume().status().timeline;
  machine_.scheduler.event(outcome ? "< rolled back" : "< not rolled back");
  if (timeline != history_.timeline) {
    history_.probes.hit("rollback");
    history_.timeline = timeline;
    if (quiet) {
      check_restored();
    }
    history_.oracle.end_rollback();
    return true;
  }
  expect(!outcome, "a rollback succeeded, and the timeline is the old one");
  const ErrorKind kind = outcome ? ErrorKind::kIo : outcome.error().kind;
  expect(options_.errors || kind == ErrorKind::kBusy || kind == ErrorKind::kNotFound,
         "a rollback failed: " + (outcome ? "" : outcome.error().message()));
  if (kind == ErrorKind::kHalfway) {
    history_.probes.hit("rollback half-way");
    return false;
  }
  if (!options_.errors) {
    history_.oracle.cancel_rollback();
  }
  return true;
}

void Life::check_restored() {
  expect_restored(history_.oracle.check_equal(primary(), history_.oracle.last_backup()));
}

void Life::expect_restored(const std::string& wrong) {
  expect(wrong.empty(), "O2: after a rollback to checkpoint " +
                            std::to_string(history_.oracle.last_number()) + ", " + wrong);
}

}  // namespace ckpt::sim
