// SPDX-License-Identifier: Apache-2.0
#include "plugin/volume.h"

#include <algorithm>
#include <cerrno>

#include "common/lineage.h"
#include "common/phase.h"
#include "plugin/checkpoint_name.h"

namespace ckpt {
namespace {

constexpr std::chrono::seconds kRetryFirst{1};  // after the store failed, at first
constexpr std::chrono::seconds kRetryMax{30};
constexpr std::chrono::milliseconds kRetryWhenWaited{200};  // while somebody waits for a checkpoint
constexpr std::chrono::seconds kFirstCopyRetry{10};
constexpr std::chrono::seconds kUnmarkEvery{5};
constexpr std::chrono::milliseconds kPoll{2};  // while a checkpoint waits for a writer
// A sync of the image writes what the kernel would otherwise gather and write much later, and
// clients feel it. So after one that took long it rests: this many times as long, at most so long,
// and less if the clients are quiet.
constexpr int kSyncRest = 20;
constexpr std::chrono::seconds kSyncRestMax{30};
constexpr std::chrono::seconds kHurryMax{10};

uint64_t incarnation_of(Random& random) {
  // 0 says "none".
  return random.next() | 1U;
}

}  // namespace

Result<std::unique_ptr<Volume>> Volume::open(const Surroundings& surroundings,
                                             const VolumeOptions& options,
                                             const OpenStore& open_store,
                                             const FreeReserve& free_reserve) {
  CKPT_ASSIGN(StartedVolume started, start_volume(surroundings, options.start));
  CKPT_ASSIGN(StoreLink* const store, open_store(started.record->get()));
  auto volume = std::unique_ptr<Volume>(
      new Volume(surroundings, options, std::move(started), *store, free_reserve));
  CKPT_TRY(volume->begin());
  return volume;
}

Volume::Volume(const Surroundings& surroundings, const VolumeOptions& options,
               StartedVolume started, StoreLink& store, const FreeReserve& free_reserve)
    : surroundings_(surroundings),
      options_(options),
      started_(std::move(started)),
      store_(store),
      free_reserve_(free_reserve),
      gate_(options.clients),
      write_path_(disk(), [this] { return on_primary_full(); }),
      shipper_(disk(), store, options.ship),
      session_(disk(), store, *started_.record, shipper_, incarnation_of(surroundings.random)),
      maker_(disk(), store, *started_.record, shipper_, session_),
      narrower_(disk(), store, surroundings.random.next()),
      rollback_(disk(), store, *started_.record, surroundings.random) {
  disk().batch_blocks = std::max<uint64_t>(1, options.ship.batch_bytes / kBlockBytes);
  const ChangedSource source = started_.decision.source;
  session_.set_inexact(source == ChangedSource::kRegionMarks ||
                       source == ChangedSource::kEverything);
  gate_.set_listener([this](uint32_t count) { started_.maps->set_connections(count); });
}

Result<> Volume::begin() {
  const MutexLock work(work_mutex_);
  const VolumeRecord record = started_.record->get();
  if (record.superseded) {
    return fail(ErrorKind::kFenced, superseded_text());
  }
  if (!options_.start.offline) {
    note(EventKind::kStart);
  }
  if (record.fenced) {
    gate_.open(true);
  }
  if (auto opened = open_session(); !opened) {
    if (record.giving_up && opened.error().kind != ErrorKind::kFenced) {
      return fail(
          opened.error().kind,
          "the back-up was told to become the primary (ckpt-tool switch), and this image is "
          "not served before it has said whether it is: " +
              opened.error().message() +
              ". Where it will never say, and it is known: that it is, ckpt-tool rejoin "
              "--force; that it is not, ckpt-tool forget, and then serve the image anew");
    }
    const bool needed = record.rollback || opened.error().kind == ErrorKind::kFenced ||
                        (options_.needs_contact && !options_.start.offline);
    return needed ? opened : Result<>();
  }
  if (record.rollback) {
    rolling_back_.store(true);
    CKPT_TRY(finish_roll_back(*record.rollback));
    rolling_back_.store(false);
    if (record.rollback->fence) {
      gate_.open(true);
    }
    // The disk is rolled back whether this succeeds or not, and the pump tries again.
    auto opened = open_session();
    return !opened && opened.error().kind == ErrorKind::kFenced ? opened : Result<>();
  }
  return {};
}

Result<> Volume::record_place(const std::string& place) {
  const VolumeRecord record = started_.record->get();
  if (place == record.store_place && !record.unplaced) {
    return {};
  }
  return started_.record->change([&](VolumeRecord& changed) {
    changed.store_place = place;
    changed.unplaced = false;
  });
}

Result<> Volume::open_session() {
  auto opened = connect_store();
  last_try_ = surroundings_.clock.steady();
  if (!opened) {
    session_.lose(opened.error());
    if (session_.is_superseded()) {
      gate_.end(opened.error().message());  // whoever reads here reads what has no future
      session_.diverge();
    }
    // What was tried for who waits does not count: the store is asked as often as without.
    if (last_try_ >= next_try_) {
      back_off();
    }
    // One that is not reached may be soon: who waits for a checkpoint says how long.
    const ErrorKind kind = opened.error().kind;
    if (kind != ErrorKind::kUnreachable) {
      const bool says_more =
          kind == ErrorKind::kDenied || kind == ErrorKind::kBusy || session_.is_superseded();
      maker_.doubt(opened.error());
      maker_.cancel("the store failed: " + opened.error().message(),
                    says_more ? kind : ErrorKind::kVoid);
    }
  }
  return opened;
}

Result<> Volume::connect_store() {
  while (disk().epochs.closed() != nullptr && !disk().epochs.is_frozen()) {
    disk().epochs.wait_frozen(kPoll);
  }
  maker_.void_lost(
      {ErrorKind::kVoid, 0, "the session with the store was lost: " + session_.problem()});
  CKPT_ASSIGN(const HandshakeRow row, session_.open());
  maker_.settle(row);
  if (session_.is_inexact() && disk().epochs.closed() == nullptr && session_.is_comparable()) {
    narrower_.start();
  }
  session_since_ = surroundings_.clock.steady();
  next_first_copy_ = session_since_;
  ask_first_copy();
  return {};
}

// Until the store has a checkpoint, one that became void is tried again after a while.
void Volume::ask_first_copy() {
  const SteadyTime now = surroundings_.clock.steady();
  const bool wanted = session_.is_open() && !session_.confirmed() && !options_.start.offline &&
                      !narrower_.is_active();
  if (wanted && maker_.is_idle() && !maker_.is_asked() && now >= next_first_copy_) {
    next_first_copy_ = now + kFirstCopyRetry;
    maker_.ask({.name = "", .message = "first copy", .timeout = std::chrono::hours(24 * 365)});
  }
}

Result<> Volume::close() {
  const MutexLock work(work_mutex_);
  maker_.cancel("the server stops");
  if (maker_.waits_for_sync()) {
    sync_for_checkpoint();
  }
  maker_.leave();
  auto stopped = stop_volume(surroundings_, started_);
  if (stopped && !options_.start.offline) {
    note(EventKind::kStop);
  }
  disk().events.write_out();
  return stopped;
}

template <typename Work>
Result<> Volume::admitted(Client& client, bool is_write, const Work& work) {
  CKPT_TRY(gate_.enter(client, is_write));
  struct Leave {
    ClientGate& gate;
    Client& client;
    ~Leave() { gate.leave(client); }
  } const leave{gate_, client};
  // Not before: what is held for a rollback is held for the session that it ends with, too.
  if (is_write && options_.requires_backup && !(session_.is_open() && store_.check_link())) {
    return fail(ErrorKind::kUnreachable, "no write without a back-up (require-backup=on)", EIO);
  }
  return work();
}

Result<> Volume::read(Client& client, uint64_t offset, ByteSpan buffer) {
  return admitted(client, false, [&] { return write_path_.read(offset, buffer); });
}

Result<> Volume::write(Client& client, uint64_t offset, ConstByteSpan buffer, bool fua) {
  return admitted(client, true, [&] { return write_path_.write(offset, buffer, fua); });
}

Result<> Volume::zero(Client& client, ByteRange range, bool punch, bool fua) {
  return admitted(client, true, [&] { return write_path_.zero(range, punch, fua); });
}

Result<> Volume::flush(Client& client) {
  return admitted(client, false, [&] { return write_path_.flush(); });
}

void Volume::stop_waiting() {
  stopping_.store(true);
  maker_.stop();
}

bool Volume::on_primary_full() {
  const bool freed = !reserve_freed_.load() && free_reserve_ && free_reserve_();
  if (freed) {
    // The store has dropped what was pending: only a new session makes it whole.
    reserve_freed_.store(true);
  }
  return freed;
}

bool Volume::ship_step() {
  if (work_wanted_.load() > 0) {
    return false;
  }
  const MutexLock work(work_mutex_);
  if (rolling_back_.load()) {
    return false;
  }
  if (reserve_freed_.exchange(false)) {
    session_.lose({ErrorKind::kNoSpace, 0, "the file system of the image is full"});
    back_off();
  }
  look_at_link();
  if (!session_.is_open() && !(may_try_session() && open_session())) {
    disk().wake_by_volume.store(false);  // nothing can be shipped, however much there is
    return false;
  }
  ask_first_copy();
  const bool busy = maker_.step();
  if (!maker_.is_idle() || maker_.is_asked()) {
    // What it clears must not have been sent for a checkpoint.
    narrower_.stop();
  }
  if (!session_.is_open()) {
    back_off();
    return false;
  }
  return busy || ship_or_narrow();
}

// The connection may be gone while nothing was sent.
void Volume::look_at_link() {
  if (auto linked = store_.check_link(); !linked && session_.is_open()) {
    session_.lose(linked.error());
    back_off();
  }
}

// A store that fails again and again is asked less and less often; people's requests try it at
// once.
void Volume::back_off() {
  const SteadyTime now = surroundings_.clock.steady();
  const bool lasted = now - session_since_ > kRetryMax;
  retry_ = lasted ? kRetryFirst : std::min<std::chrono::nanoseconds>(retry_ * 2, kRetryMax);
  next_try_ = now + retry_;
}

bool Volume::may_try_session() {
  const SteadyTime now = surroundings_.clock.steady();
  return !session_.is_diverged() &&
         (now >= next_try_ || (maker_.is_waited_for() && now >= last_try_ + kRetryWhenWaited));
}

bool Volume::ship_or_narrow() {
  if (narrower_.is_active()) {
    if (auto narrowed = narrower_.narrow_some(); !narrowed) {
      narrower_.stop();
    }
    session_.set_inexact(narrower_.is_active());
    return true;
  }
  const bool may = session_.is_open() && !disk().trouble.is_suspect();
  const bool due = shipper_.is_due();
  disk().wake_by_volume.store(may && (due || shipper_.rest().count() <= 0));
  if (!may || !due) {
    return false;
  }
  const PhaseScope phase(Phase::kShipping);
  auto shipped = shipper_.ship_ahead();
  if (!shipped && shipped.error().kind != ErrorKind::kUnreadable) {
    session_.lose(shipped.error());
    back_off();
  }
  if (!shipped) {
    return false;
  }
  disk().wake_by_volume.store(*shipped);
  return *shipped;
}

void Volume::wait_for_work(std::chrono::nanoseconds most) {
  std::chrono::nanoseconds time = options_.ship.batch_delay;
  if (session_.is_open() && disk().epochs.closed() != nullptr &&
      (!maker_.waits_for_sync() || maker_.is_asked())) {
    time = kPoll;
  } else if (const auto rest = shipper_.rest(); rest.count() > 0) {
    time = rest;
  }
  disk().shipper.wait(std::min(time, most));
}

bool Volume::keep_step() {
  if (disk().trouble.is_suspect() && !started_.record->get().suspect) {
    // A failure is known to the next change of the record: no checkpoint is made without one.
    (void)started_.record->change(
        [this](VolumeRecord& record) { record.suspect = disk().trouble.is_suspect(); });
  }
  const SteadyTime now = surroundings_.clock.steady();
  note_store(now);
  disk().events.write_out();
  if (maker_.wants_sync().value != 0 && may_sync(now) && sync_for_checkpoint()) {
    return true;
  }
  if (now < next_unmark_) {
    return false;
  }
  next_unmark_ = now + kUnmarkEvery;
  // A failure leaves marks as they are, or makes writers record that everything is changed.
  return static_cast<bool>(started_.regions->unmark_some());
}

// Where processors are short it waits a while for the clients to be quiet.
bool Volume::may_sync(SteadyTime now) {
  if (!sync_delayed_) {
    sync_delayed_ = true;
    if (disk().crowded.load() && sync_pace_.rest(now).count() == 0) {
      sync_pace_.rest_for(kDirtyTime, now);
    }
  }
  const bool may = sync_waiters_.load() > 0 || sync_pace_.may_go_on(now, since_write());
  maker_.set_sync_rests(!may);
  return may;
}

// False: no written map waits for it.
bool Volume::sync_for_checkpoint() {
  const Epoch wanted = maker_.wants_sync();
  if (wanted.value == 0 || disk().trouble.is_suspect() ||
      CKPT_PLANTED(unmark_before_primary_sync)) {
    return false;
  }
  const SteadyTime begin = surroundings_.clock.steady();
  if (disk().sync_image()) {
    maker_.synced(wanted);
  }
  const SteadyTime end = surroundings_.clock.steady();
  sync_delayed_ = false;
  sync_pace_.rest_for(std::min<std::chrono::nanoseconds>((end - begin) * kSyncRest, kSyncRestMax),
                      end);
  disk().shipper.wake();
  return true;
}

VolumeStatus Volume::status() {
  const VolumeRecord record = started_.record->get();
  VolumeStatus status;
  // Who reads that it was superseded can rely on it that nobody is served any more.
  const bool is_over = session_.is_superseded() && session_.is_diverged();
  status.state = is_over                  ? "diverged"
                 : rolling_back_.load()   ? "rolling-back"
                 : session_.is_diverged() ? "diverged"
                 : gate_.is_refusing()    ? "fenced"
                 : options_.start.offline ? "stopped"
                                          : "running";
  status.role = "primary";
  status.image = options_.image_path;
  status.uris = uris_;
  status.attachments_folder = options_.attachments_path;
  status.name = options_.name;
  status.volume = record.volume;
  status.timeline = record.timeline;
  status.lineage = recent_ends(record.forks);
  status.size_bytes = record.size_bytes;
  status.io = options_.io;
  status.epoch = disk().epochs.number();
  status.last_checkpoint = last_checkpoint();
  const uint64_t size_bytes = record.size_bytes;
  status.changed_bytes = std::min(disk().changed_blocks() * kBlockBytes, size_bytes);
  const EpochObject* const closed = disk().epochs.closed();
  const uint64_t unshipped = disk().epochs.current().unshipped.count() +
                             (closed != nullptr ? closed->unshipped.count() : 0);
  status.unshipped_bytes = std::min(unshipped * kBlockBytes, size_bytes);
  status.preserved_blocks = disk().preserved.blocks_total();
  status.stall_max = std::chrono::nanoseconds(disk().stall_max_ns.load());
  status.connections = gate_.count();
  status.store = store_status();
  status.checkpoint_interval = options_.checkpoint_interval;
  status.counts = disk().events.counts();
  status.problem = is_over ? superseded_text() : session_.problem();
  if (status.problem.empty() && options_.has_backup && status.store->state == "detached") {
    status.problem = status.store->error;  // the session has not heard of it yet
  }
  if (const std::string trouble = disk().trouble.text(); !trouble.empty()) {
    status.problem = trouble;
  }
  if (status.problem.empty() && !started_.decision.reason.empty()) {
    status.problem = narrower_.is_active() ? started_.decision.reason : "";
  }
  if (const auto lost = lost_checkpoint(); lost && status.problem.empty()) {
    status.problem = "the back-up has lost checkpoint " + std::to_string(lost->value) +
                     " (it is new, or was restored): the next checkpoint copies the whole disk";
  }
  if (!options_.has_backup) {
    status.store.reset();
  }
  status.protection =
      session_.is_open() && session_.confirmed().has_value() && status.problem.empty();
  return status;
}

// Whoever asked for a checkpoint is told of it before it is on record here: the store knows.
std::optional<CheckpointInfo> Volume::last_checkpoint() {
  return session_.is_open() ? session_.confirmed() : started_.record->get().last;
}

// The last one on record here, where the store has an older one or none.
std::optional<Epoch> Volume::lost_checkpoint() {
  const auto recorded = started_.record->get().last;
  const auto confirmed = session_.confirmed();
  const bool is_lost =
      session_.is_open() && recorded && (!confirmed || confirmed->id.number < recorded->id.number);
  return is_lost ? std::optional(recorded->id.number) : std::nullopt;
}

Result<CheckpointOutcome> Volume::checkpoint(const CheckpointRequest& request) {
  CKPT_TRY(check_name(request.name));
  CKPT_TRY(check_message(request.message));
  if (!options_.has_backup) {
    return Unexpected(store_.checkpoints().error());
  }
  if (rolling_back_.load()) {
    return fail(ErrorKind::kBusy, "a rollback is under way");
  }
  if (session_.is_diverged()) {
    return fail(ErrorKind::kFenced, session_.problem());
  }
  const SteadyTime until = surroundings_.clock.steady() + request.timeout;
  auto made = maker_.take(request);
  return made && options_.awaits_relay ? await_relay(std::move(*made), until) : std::move(made);
}

Result<> Volume::check_not_superseded() {
  return session_.is_superseded() ? fail(ErrorKind::kFenced, session_.problem()) : Result<>();
}

Result<CheckpointInfo> Volume::kept_checkpoint(std::string_view id) {
  CKPT_ASSIGN(const auto kept, store_.checkpoints());
  return find_checkpoint(kept, id);
}

// Until it is done, what was written before the last checkpoint counts as changed.
void Volume::hurry_sync() {
  const SteadyTime deadline = surroundings_.clock.steady() + kHurryMax;
  ++sync_waiters_;
  Waker pause;
  while (maker_.waits_for_sync() && !disk().trouble.is_suspect() && session_.is_open() &&
         !stopping_.load() && surroundings_.clock.steady() < deadline) {
    pause.wait(kPoll);
  }
  --sync_waiters_;
}

Result<VerifyOutcome> Volume::verify(const Progress& progress) {
  CKPT_ASSIGN(const CheckpointInfo last, kept_checkpoint("last"));
  hurry_sync();
  Verifier verifier(disk(), store_, surroundings_.random.next());
  CKPT_ASSIGN(VerifyOutcome outcome, verifier.verify([&](uint64_t done, uint64_t total) {
    return !stopping_.load() && progress(done, total);
  }));
  outcome.checkpoint = last;
  return outcome;
}

Result<> Volume::accept() {
  CKPT_TRY(check_not_superseded());
  if (rolling_back_.load()) {
    return fail(ErrorKind::kBusy, "a rollback is under way");
  }
  CKPT_TRY(started_.record->change([](VolumeRecord& record) {
    record.fenced = false;
    record.had_clients = false;
  }));
  started_.decision.had_clients = false;
  gate_.accept();
  note(EventKind::kAccept);
  return {};
}

// "last" is whichever is when the store begins.
Result<> Volume::export_checkpoint(const std::string& id, ExportSink& sink) {
  if (id == "last") {
    return store_.export_checkpoint(std::nullopt, sink);
  }
  CKPT_ASSIGN(const CheckpointInfo target, kept_checkpoint(id));
  return store_.export_checkpoint(target.id.number, sink);
}

Result<> Volume::read_attachment(const std::string& id, const std::string& name, PieceSink& sink) {
  CKPT_ASSIGN(const CheckpointInfo target, kept_checkpoint(id));
  return store_.read_attachment(target.id.number, name, sink);
}

}  // namespace ckpt
