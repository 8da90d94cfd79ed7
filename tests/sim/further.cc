// SPDX-License-Identifier: Apache-2.0
#include "tests/sim/further.h"

#include "backupd/store/volume_file.h"

namespace ckpt::sim {
namespace {

NetworkOptions further_network(const Plan& plan) {
  NetworkOptions options;
  options.break_one_in = plan.link_break_one_in;
  options.bytes_before_break = uint64_t{1} << 16U;
  return options;
}

}  // namespace

Further::Further(Scheduler& scheduler, const Plan& plan, const SeededRandom& random,
                 IoGuard::Report report)
    : scheduler_(scheduler),
      plan_(plan),
      disk_(scheduler, {.name = "further", .device = 3, .tells_holes = true},
            random.stream("further disk")),
      guard_(disk_, [report = std::move(report)](
                        const std::string& what) { report("further store: " + what); }),
      network_(scheduler, further_network(plan), random.stream("further network")),
      machine_{scheduler, disk_, guard_, network_} {}

void Further::start() {
  backupd_ = std::make_unique<SimBackupd>(
      machine_, BackupdOptions{.unapplied_bytes_max = plan_.server.unapplied_bytes_max,
                               .pass_rest = plan_.server.pass_rest});
  process_ = scheduler_.new_process();
  scheduler_.event("further backupd", "", process_);
  scheduler_.spawn(
      process_, "further", [this] { backupd_->run(); }, FiberKind::kBackground);
}

void Further::crash(bool power) {
  if (process_ == kHarness) {
    return;
  }
  scheduler_.event(power ? "further machine loses power" : "further backupd is killed");
  if (power) {
    network_.lose_power(process_);
  }
  scheduler_.kill(process_);
  process_ = kHarness;
  backupd_.reset();
  if (power) {
    disk_.power_loss();
  } else {
    disk_.land_some_zombies();
    disk_.land_zombies();
  }
  guard_.restart();
}

Result<std::optional<FurtherStore>> Further::look(const Uuid& volume) {
  auto folder = disk_.root()->subdirectory(volume.to_string(), false);
  if (!folder && folder.error().kind == ErrorKind::kNotFound) {
    return std::optional<FurtherStore>();
  }
  CKPT_TRY(folder);
  const auto size_bytes = VolumeFile::size_of_disk(**folder, std::nullopt);
  if (!size_bytes && size_bytes.error().kind == ErrorKind::kNotFound) {
    return std::optional<FurtherStore>();  // it was not made to the end
  }
  StoreOptions options;
  options.volume = volume;
  CKPT_ASSIGN(options.size_bytes, size_bytes);
  options.clock = &scheduler_.clock();
  CKPT_ASSIGN(const auto store, Store::open(std::move(*folder), options));
  const StoreRecord record = store->record();
  if (!record.last) {
    return std::optional<FurtherStore>();
  }
  FurtherStore found{*record.last, record.incarnation, std::vector<std::byte>(options.size_bytes)};
  CKPT_TRY(store->read_confirmed(0, found.content));
  return std::optional(std::move(found));
}

}  // namespace ckpt::sim
