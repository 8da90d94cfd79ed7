// SPDX-License-Identifier: Apache-2.0
#include "tools/promoted_disk.h"

#include <fmt/format.h>

#include <filesystem>
#include <thread>

#include "common/clock.h"
#include "plugin/store_volume.h"
#include "tools/format.h"

namespace ckpt {
namespace {

// This tool's own look at the server is one of them.
constexpr std::chrono::seconds kClientsPatience{2};
constexpr std::chrono::milliseconds kClientsLook{50};

}  // namespace

std::optional<PromotedDisk> find_promoted(const OpenedVolume& opened) {
  const std::filesystem::path image(opened.paths.image);
  auto store = open_store_volume(image.parent_path().string());
  if (image.filename() != "backup.img" || !store) {
    return std::nullopt;
  }
  const VolumeStatus status = (*store)->status();
  if (status.state != "promoted" || !status.last_checkpoint ||
      status.volume != opened.volume->status().volume) {
    return std::nullopt;
  }
  return PromotedDisk{std::move(*store), *status.last_checkpoint};
}

Result<> check_still_promoted(const PromotedDisk& promoted, const VolumeStatus& status,
                              bool as_is) {
  const uint64_t number = promoted.checkpoint.id.number.value;
  if (status.last_checkpoint &&
      status.last_checkpoint->id.number != promoted.checkpoint.id.number) {
    return fail(ErrorKind::kInvalid,
                fmt::format("the disk has had checkpoint {} since it was promoted at {}, of which "
                            "the processes are",
                            status.last_checkpoint->id.number.value, number));
  }
  if (status.connections > 0) {
    return fail(ErrorKind::kBusy,
                fmt::format("clients are connected to the disk ({}), which was promoted at "
                            "checkpoint {}: disconnect them; its processes need it as it was then",
                            status.connections, number));
  }
  return status.changed_bytes == 0 || as_is
             ? Result<>()
             : Result<>(
                   fail(ErrorKind::kInvalid,
                        fmt::format(
                            "{} of the disk count as changed since it was promoted at checkpoint "
                            "{}, and there is no back-up from which it could go back: its "
                            "processes may not fit it any more. While a back-up of it is being "
                            "made all of it counts: serve it with backup=none for this. If it was "
                            "only mounted, and nothing on it written to: --as-is",
                            format_bytes(status.changed_bytes), number)));
}

Result<> check_still_promoted(const PromotedDisk& promoted, VolumeApi& volume, bool as_is) {
  const SteadyTime deadline = system_clock().steady() + kClientsPatience;
  VolumeStatus status = volume.status();
  while (status.connections > 0 && system_clock().steady() < deadline) {
    std::this_thread::sleep_for(kClientsLook);
    status = volume.status();
  }
  return check_still_promoted(promoted, status, as_is);
}

}  // namespace ckpt
