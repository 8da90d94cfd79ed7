// SPDX-License-Identifier: Apache-2.0
#include "tests/sim/world.h"

#include <array>
#include <cerrno>

namespace ckpt::sim {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

constexpr SteadyTime kLifeMax = std::chrono::minutes(30);

NetworkOptions network_options(const Plan& plan) {
  NetworkOptions options;
  options.break_one_in = plan.link_break_one_in;
  options.bytes_before_break = uint64_t{1} << 17U;
  return options;
}

BackupdOptions backupd_options(const Plan& plan, Further* further) {
  BackupdOptions options;
  options.unapplied_bytes_max = plan.server.unapplied_bytes_max;
  options.pass_rest = plan.server.pass_rest;
  options.further = further == nullptr ? nullptr : &further->network();
  options.relay_queue_bytes = plan.few_wait ? 2 * kBlockBytes : kRelayQueueBytesMax;
  return options;
}

}  // namespace

World::World(const Plan& plan, Probes& probes)
    : plan_(plan),
      random_(SeededRandom(plan.seed + plan.crash_at).stream("world")),
      scheduler_(plan.scheduler),
      disk_(scheduler_, {.name = "disk", .tells_holes = true}, random_.stream("disk")),
      memory_(scheduler_),
      faults_(random_.stream("faults")),
      guard_(disk_, {plan.size_bytes, plan.server.volume.start.region_bytes},
             [this](const std::string& what) { report(what); }),
      network_(scheduler_, network_options(plan), random_.stream("network")),
      backup_disk_(scheduler_, {.name = "back-up", .device = 2, .tells_holes = true},
                   random_.stream("backup disk")),
      backup_faults_(random_.stream("backup faults")),
      backup_guard_(backup_disk_,
                    [this](const std::string& what) { report("back-up: " + what); }),
      machine_{scheduler_, disk_,        memory_, guard_,
               network_,   backup_disk_, "boot0", scheduler_.now()},
      backup_machine_{scheduler_, backup_disk_, backup_guard_, network_},
      history_{.oracle = Oracle(plan.size_bytes / kSector),
               .volume = {},
               .timeline = {},
               .probes = probes} {
  scheduler_.advance(seconds(5));
  if (plan_.relay) {
    further_ = std::make_unique<Further>(scheduler_, plan_, random_,
                                         [this](const std::string& what) { report(what); });
  }
  set_probes(&probes);
}

World::~World() {
  set_probes(nullptr);
  disk_.set_faults(nullptr);
  memory_.set_faults(nullptr);
  backup_disk_.set_faults(nullptr);
  if (backup_process_ != kHarness) {
    scheduler_.kill(backup_process_);
  }
}

std::string World::failure() const {
  return "seed " + std::to_string(plan_.seed) + ": " + scheduler_.failure() +
         "\n  plan: " + describe(plan_) + "\n" + scheduler_.trace().last_events();
}

bool World::run() {
  make_image();
  if (further_) {
    further_->start();
  }
  if (plan_.server.remote) {
    start_backupd();
  }
  for (uint32_t i = 0; i < plan_.lives && !scheduler_.failed(); ++i) {
    live(false);
    if (!scheduler_.failed() && random_.one_in(2)) {
      look();
    }
    if (copy_ && random_.one_in(2)) {
      put_copy_back();
    }
    if (plan_.fail_overs && !scheduler_.failed() && random_.one_in(2)) {
      fail_over();
    }
    if (further_) {
      check_further();
    }
  }
  if (!scheduler_.failed()) {
    live(true);
  }
  if (further_) {
    expect_further_caught_up();
  }
  const NetworkCounts& counts = network_.counts();
  history_.probes.hit("link reset", counts.resets);
  history_.probes.hit("clock set back", scheduler_.clock_set_backs());
  history_.probes.hit("link silent", counts.silences);
  history_.probes.hit("link broken for one side", counts.one_sided);
  history_.probes.hit("bytes heard after their sender had given up", counts.late_bytes);
  return !scheduler_.failed();
}

// An image that may hold something before it is protected.
void World::make_image() {
  const std::unique_ptr<Directory> root = disk_.root();
  auto image = root->open(kImageName, OpenMode::kCreate);
  CKPT_CHECK(image && (*image)->resize(plan_.size_bytes) && (*image)->sync() && root->sync());
  for (uint64_t i = random_.below(4); i > 0; --i) {
    tamper();
  }
}

// As cp does, or as a restore does that makes a new file.
void World::put_image_back() {
  if (random_.one_in(2)) {
    disk_.tamper(kImageName, 0, *image_copy_);
  } else {
    disk_.replace(kImageName, *image_copy_);
  }
  history_.oracle.put_back(read_versions(0, *image_copy_));
  scheduler_.event("the image is put back");
  history_.probes.hit("image put back from an older copy");
  image_copy_.reset();
}

void World::tamper() {
  const uint64_t sectors = plan_.size_bytes / kSector;
  const uint64_t first = random_.below(sectors);
  const SectorRange range{first, std::min(sectors, first + random_.between(1, 20))};
  const RequestPtr request = history_.oracle.tamper(range);
  disk_.tamper(kImageName, range.first * kSector, make_sectors(range.first, request->versions));
  scheduler_.event("tamper", "", range.first, range.end);
}

// ---- lives

void World::live(bool last) {
  const bool errors = plan_.has_errors() && !last;
  const bool crashes = plan_.has_crashes() && !last && (plan_.is_scripted() || !random_.one_in(3));
  switch_errors(errors);
  switch_backup_errors(!last);
  Life life(machine_, history_,
            {.plan = plan_,
             .errors = errors ||
                       ((plan_.server.link_lost_one_in != 0 || plan_.has_backup_faults()) && !last),
             .disk_errors = errors,
             .last = last,
             .crashes = crashes,
             .number = ++lives_});
  const ProcessId process = scheduler_.new_process();
  scheduler_.event("life", "", lives_, process);
  scheduler_.spawn(process, "main", [&life] { life.run(); });
  run_life(life, process, crashes, last);
  volume_exists_ = true;
}

void World::run_life(Life& life, ProcessId process, bool crashes, bool last) {
  const uint64_t steps = !crashes ? kStepsMax : plan_.is_scripted() ? plan_.crash_at : draw_steps();
  const RunEnd end = run_primary(steps, !last);
  if (end == RunEnd::kTime || (end == RunEnd::kSteps && !crashes)) {
    report("O8: the load does not come to its end:\n" + scheduler_.describe_fibers());
  }
  end_life(process);
  tampered_ = tampered_ && !life.opened();
  has_closed_ = life.closed() && !plan_.has_errors() && !plan_.has_backup_faults();
  if (!scheduler_.failed()) {
    history_.probes.hit(!life.ended()   ? "life ended by a crash"
                        : life.closed() ? "life ended by a stop"
                                        : "life ended without a stop");
    crash(last ? Crash::kKill : draw_crash());
  }
}

// So many steps, while the back-up's machine may crash, and come back. The last life has a back-up
// that lasts.
RunEnd World::run_primary(uint64_t steps, bool crashes) {
  uint64_t left = steps;
  while (plan_.has_backup_crashes() && crashes) {
    const uint64_t some = std::min(left, uint64_t{1} << random_.between(5, 15));
    const RunEnd end = scheduler_.run({.steps = some, .time = kLifeMax});
    left -= some;
    if (end != RunEnd::kSteps || left == 0) {
      return end;
    }
    if (further_ && random_.one_in(3)) {
      further_->crash(plan_.backup_power_losses && random_.one_in(2));
      further_->start();
    } else if (backup_process_ == kHarness) {
      start_backupd();
    } else {
      crash_backupd(plan_.backup_power_losses && (!plan_.backup_kills || random_.one_in(2))
                        ? Crash::kPower
                        : Crash::kKill);
    }
  }
  return scheduler_.run({.steps = left, .time = kLifeMax});
}

// From the first step of a start to the last of a long life.
uint64_t World::draw_steps() {
  const uint64_t magnitude = random_.between(2, 14);
  return random_.between(1, uint64_t{1} << magnitude);
}

World::Crash World::draw_crash() {
  // A sync that failed is told once. Whoever opens the file again cannot know, and no program can
  // cope with what is lost later: so it is lost now.
  if (sync_failed_) {
    return Crash::kPower;
  }
  // Between a kill and a loss of power nobody can tell whose the last write to the image was.
  if (tampered_) {
    return Crash::kKill;
  }
  if (plan_.power_losses && (!plan_.kills || random_.one_in(2))) {
    return Crash::kPower;
  }
  return Crash::kKill;
}

void World::switch_errors(bool on) {
  faults_.clear();
  disk_.set_faults(on ? &faults_ : nullptr);
  memory_.set_faults(on ? &faults_ : nullptr);
  disk_.set_capacity_bytes(uint64_t{1} << 40U);
  if (!on) {
    return;
  }
  const auto add = [this](DiskOperation operation, const char* under, uint64_t one_in, int error) {
    faults_.add({.operation = operation, .path_begin = under, .one_in = one_in, .error = error});
  };
  add(DiskOperation::kWrite, "image", plan_.image_write_error_one_in, EIO);
  add(DiskOperation::kZero, "image", plan_.image_write_error_one_in, EIO);
  add(DiskOperation::kRead, "image", plan_.image_read_error_one_in, EIO);
  // The longer path first: the store's is under the volume's.
  add(DiskOperation::kWrite, "state/store", plan_.store_error_one_in, EIO);
  add(DiskOperation::kWrite, "state/", plan_.state_error_one_in, EIO);
  // A sync that fails ends in a loss of power, after which nobody could tell of the other program.
  if (!tampered_) {
    add(DiskOperation::kSync, "image", plan_.image_sync_error_one_in, EIO);
    add(DiskOperation::kSync, "state/store", plan_.store_error_one_in, EIO);
    add(DiskOperation::kSync, "state/", plan_.state_error_one_in, EIO);
  }
  add(DiskOperation::kSharedAllocate, "", plan_.memory_full_one_in, ENOSPC);
  if (plan_.no_space) {
    disk_.set_capacity_bytes(disk_.used_bytes() + random_.below(1U << 20U));
  }
  if (plan_.state_error_one_in != 0 || plan_.no_space) {
    guard_.excuse_marks();
  }
}

void World::switch_backup_errors(bool on) {
  backup_faults_.clear();
  backup_disk_.set_faults(on ? &backup_faults_ : nullptr);
  backup_disk_.set_capacity_bytes(uint64_t{1} << 40U);
  network_.set_breaking(on);
  if (further_) {
    further_->set_breaking(on);
  }
  if (!on) {
    return;
  }
  for (const DiskOperation operation : {DiskOperation::kWrite, DiskOperation::kSync}) {
    backup_faults_.add({.operation = operation, .one_in = plan_.store_error_one_in, .error = EIO});
  }
  if (plan_.backup_no_space) {
    backup_disk_.set_capacity_bytes(backup_disk_.used_bytes() + random_.below(1U << 20U));
  }
}

void World::end_life(ProcessId process) {
  sync_failed_ = faults_.count(DiskOperation::kSync) > 0;
  const bool image_failed = faults_.failed_syncs(kImageName) > 0;
  history_.image_syncs_failed = history_.image_syncs_failed || image_failed;
  history_.image_suspect = history_.image_suspect || image_failed;
  switch_errors(false);
  scheduler_.kill(process);
  guard_.restart();
  renew_backupd();
}

// ---- the back-up's machine

void World::start_backupd() {
  backupd_ = std::make_unique<SimBackupd>(backup_machine_, backupd_options(plan_, further_.get()));
  backup_process_ = scheduler_.new_process();
  scheduler_.event("backupd", "", backup_process_);
  scheduler_.spawn(
      backup_process_, "backupd", [this] { backupd_->run(); }, FiberKind::kBackground);
}

void World::crash_backupd(Crash kind) {
  // As on the primary's machine: what a failed sync lost is lost at once.
  const bool loses_power = kind == Crash::kPower || backup_faults_.count(DiskOperation::kSync) > 0;
  scheduler_.event(loses_power ? "back-up loses power" : "backupd is killed");
  history_.probes.hit(loses_power ? "back-up loses power" : "backupd killed");
  if (loses_power) {
    network_.lose_power(backup_process_);
  }
  scheduler_.kill(backup_process_);
  backup_process_ = kHarness;
  backupd_.reset();
  if (loses_power) {
    backup_disk_.power_loss();
  } else {
    backup_disk_.land_some_zombies();
    backup_disk_.land_zombies();
  }
  backup_guard_.restart();
}

// What has failed there goes on failing until it starts again.
void World::renew_backupd() {
  if (!plan_.server.remote) {
    return;
  }
  if (backup_process_ != kHarness && (plan_.has_errors() || plan_.backup_no_space)) {
    crash_backupd(Crash::kKill);
  }
  switch_backup_errors(false);
  if (backup_process_ == kHarness) {
    start_backupd();
  }
}

// ---- crashes

void World::crash(Crash kind) {
  if (kind == Crash::kPower) {
    lose_power();
  } else {
    disk_.land_some_zombies();
    scheduler_.advance(milliseconds(random_.below(50)));
    disk_.land_zombies();
  }
  const std::vector<Version> image = read_versions(0, disk_.cached(kImageName).value());
  const bool power_lost = kind == Crash::kPower;
  report(history_.oracle.check_crash(image, power_lost, history_.image_syncs_failed));
  history_.image_syncs_failed = history_.image_syncs_failed && !power_lost;
  // (What a rollback that may have ended has restored could not be checked any more.)
  if (plan_.tampering && random_.one_in(3) && !history_.oracle.rolling_back()) {
    // A write of the server's own may be stamped up to a second after its death.
    scheduler_.advance(seconds(3));
    if (image_copy_ && random_.one_in(2)) {
      put_image_back();
    } else {
      tamper();
    }
    tampered_ = true;
  } else if (plan_.tampering && !history_.oracle.rolling_back()) {
    image_copy_ = disk_.cached(kImageName);
  }
  scheduler_.advance(milliseconds(random_.between(5, 500)));
}

void World::lose_power() {
  disk_.power_loss();
  memory_.power_loss();
  scheduler_.advance(seconds(random_.between(1, 60)));
  machine_.boot_id = "boot" + std::to_string(++boots_);
  machine_.booted_at = scheduler_.now();
  scheduler_.advance(seconds(1));
  history_.probes.hit("loss of power");
}

// O3: starts, looks which blocks count as changed, and dies.
void World::look() {
  std::optional<Result<Probe>> found;
  const std::optional<Flip> flip = plan_.corruption ? flip_a_bit() : std::nullopt;
  const ProcessId process = scheduler_.new_process();
  scheduler_.spawn(process, "probe", [&] { found.emplace(probe(machine_, plan_.server)); });
  const bool crashes = plan_.has_crashes() && random_.one_in(3);
  scheduler_.run({.steps = crashes ? draw_steps() : kStepsMax});
  scheduler_.kill(process);
  guard_.restart();
  if (found && !*found) {
    const bool refused = flip && found->error().kind == ErrorKind::kCorrupt;
    history_.probes.hit("corruption refused", refused ? 1 : 0);
    report(refused ? "" : "a start failed: " + found->error().message());
  } else if (found) {
    tampered_ = false;
    check_changed(**found);
    take_copy(**found);
  }
  if (flip) {
    (void)put_byte(*flip, flip->before);
  }
  if (!scheduler_.failed()) {
    sync_failed_ = false;
    crash(draw_crash());
  }
}

// Of the journal, at rest.
std::optional<World::Flip> World::flip_a_bit() {
  const std::string folder = store_folder() + "/journal";
  const std::vector<std::string> files = store_disk().list(folder);
  if (files.empty()) {
    return std::nullopt;
  }
  const std::string path = folder + "/" + files[random_.below(files.size())];
  const std::vector<std::byte> content = store_disk().cached(path).value();
  if (content.empty()) {
    return std::nullopt;
  }
  const uint64_t offset = random_.below(content.size());
  const std::byte before = content[offset];
  const std::byte after = before ^ static_cast<std::byte>(1U << random_.below(8));
  scheduler_.event("flip a bit", "", offset);
  history_.probes.hit(plan_.server.remote ? "flip a bit of backupd's" : "flip a bit");
  return put_byte({path, offset, before}, after) ? std::optional(Flip{path, offset, before})
                                                 : std::nullopt;
}

// While no process has the store open. False: beyond what was confirmed the whole file may be gone,
// as a torn tail.
bool World::put_byte(const Flip& flip, std::byte value) {
  if (plan_.server.remote) {
    crash_backupd(Crash::kKill);
  }
  const bool is_there = store_disk().cached(flip.path).has_value();
  if (is_there) {
    store_disk().tamper(flip.path, flip.offset, std::array{value});
  }
  if (plan_.server.remote) {
    start_backupd();
  }
  return is_there;
}

SimDisk& World::store_disk() { return plan_.server.remote ? backup_disk_ : disk_; }

std::string World::store_folder() const {
  return plan_.server.remote ? history_.volume.to_string() : "state/store";
}

// ---- copies of the store

void World::take_copy(const Probe& found) {
  if (!plan_.old_copies || copy_ || found.backup.empty() || is_behind()) {
    return;
  }
  copy_ =
      OldCopy{store_disk().copy(store_folder()), found.number, read_versions(0, found.backup)};
}

// The primary knows of a later checkpoint: it must notice, and make the store whole again.
void World::put_copy_back() {
  // (With the last one on its record; otherwise it has to refuse the store, as diverged.)
  if (scheduler_.failed() || !has_closed_ || history_.oracle.rolling_back() ||
      history_.oracle.last_answered() <= copy_->number) {
    return;
  }
  scheduler_.event("the store is put back", "", copy_->number);
  history_.probes.hit("store put back from an older copy");
  if (plan_.server.remote) {
    crash_backupd(Crash::kKill);
  }
  store_disk().put_back(store_folder(), copy_->content);
  if (plan_.server.remote) {
    start_backupd();
  }
  history_.oracle.restore_backup(copy_->number, copy_->backup);
  behind_at_ = copy_->number;
  copy_.reset();
}

bool World::in_process(const char* name, const std::function<Result<>()>& act) {
  std::optional<Result<>> done;
  const ProcessId process = scheduler_.new_process();
  scheduler_.spawn(process, name, [&] { done.emplace(act()); });
  scheduler_.run({.steps = kStepsMax});
  scheduler_.kill(process);
  guard_.restart();
  const bool is_done = done && *done;
  report(is_done ? "" : std::string(name) + ": " + (done ? done->error().message() : "no end"));
  return is_done;
}

// Until there is a new checkpoint only a session tells what has to be shipped again.
bool World::is_behind() const {
  return behind_at_ != 0 && history_.oracle.last_answered() == behind_at_;
}

void World::check_changed(const Probe& found) {
  if (found.backup.empty() || is_behind()) {
    return;
  }
  history_.probes.hit("looked at what counts as changed");
  const std::vector<std::byte> image = disk_.cached(kImageName).value();
  for (uint64_t block = 0; block < found.changed.size(); ++block) {
    const ByteRange range = bytes_of({block, block + 1}, plan_.size_bytes);
    const bool equal = std::equal(image.begin() + static_cast<ptrdiff_t>(range.offset),
                                  image.begin() + static_cast<ptrdiff_t>(range.end()),
                                  found.backup.begin() + static_cast<ptrdiff_t>(range.offset));
    if (!equal && !found.changed[block]) {
      report("O3: block " + std::to_string(block) +
             " differs from the store's checkpoint and does not count as changed");
    }
  }
}

}  // namespace ckpt::sim
