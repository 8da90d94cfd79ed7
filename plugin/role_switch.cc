// SPDX-License-Identifier: Apache-2.0
#include "plugin/role_switch.h"

#include "plugin/backup_place.h"
#include "plugin/config.h"
#include "plugin/local_volume.h"

namespace ckpt {
namespace {

Result<VolumeRecord> read_record(const std::string& state_path) {
  CKPT_ASSIGN(const auto state, PosixDirectory::open(state_path, false, RingUse{}));
  CKPT_ASSIGN(const auto file, VolumeRecordFile::open(*state, system_random()));
  return file->get();
}

Result<std::string> find_backup(const RejoinOptions& options) {
  CKPT_ASSIGN(const std::string moved, parse_backup_option(options.backup));
  CKPT_ASSIGN(const VolumeRecord record, read_record(options.state_path));
  if (record.superseded) {
    return fail(ErrorKind::kFenced, "the back-up of " + options.image_path +
                                        " is the primary already: ckpt-tool rejoin " +
                                        options.image_path + " makes a back-up of this one");
  }
  const std::string place = is_remote_place(moved) ? moved : record.store_place;
  return is_remote_place(place) && !record.unplaced
             ? Result<std::string>(describe_place(place, options.state_path))
             : fail(ErrorKind::kInvalid,
                    "the back-up of " + options.image_path +
                        " is on this machine, or there is none: there is nobody to change roles "
                        "with");
}

// The last checkpoint, and the end of the image's time as the primary. The lock on the image keeps
// servers out from before the one until after the other.
Result<CheckpointInfo> give_up_role(const RejoinOptions& options,
                                    std::chrono::milliseconds timeout) {
  CKPT_ASSIGN(const LocalOptions opened, options_without_server(options));
  CKPT_ASSIGN(const auto local, LocalVolume::open(opened));
  if (auto ready = local->volume().check_backup_promotes(); !ready) {
    (void)local->close();
    return Unexpected(ready.error());
  }
  local->start_pumps();
  CheckpointRequest request;
  request.message = "change of roles";
  request.timeout = timeout;
  const auto made = local->volume().checkpoint(request);
  auto promoted =
      made ? local->volume().promote_backup() : Result<CheckpointInfo>(Unexpected(made.error()));
  // What is known of the image's changes is known without a clean end, too.
  (void)local->close();
  return promoted;
}

}  // namespace

Result<SwitchOutcome> switch_roles(const SwitchOptions& options) {
  const std::string& image = options.rejoin.image_path;
  const std::string go_on = "ckpt-tool rejoin " + image + " --store " + options.rejoin.shelf_path +
                            ", with the same --backup and --tls options";
  SwitchOutcome outcome;
  CKPT_ASSIGN(outcome.backup, find_backup(options.rejoin));
  CKPT_TRY(check_can_rejoin(options.rejoin));
  CKPT_TRY(options.on_ready(outcome.backup));
  auto given_up = give_up_role(options.rejoin, options.timeout);
  if (!given_up && given_up.error().kind == ErrorKind::kHalfway) {
    return fail(ErrorKind::kHalfway, given_up.error().message() + ". If it has, " + go_on +
                                         " goes on, else it says so, and switch can be repeated");
  }
  if (!given_up) {
    const auto record = read_record(options.rejoin.state_path);
    return record && record->superseded
               ? fail(ErrorKind::kFenced,
                      given_up.error().message() + ". " + go_on +
                          " makes a back-up of this image; what was written to it after its last "
                          "checkpoint is given up with that")
               : Result<SwitchOutcome>(Unexpected(given_up.error()));
  }
  outcome.checkpoint = *given_up;
  auto rejoined = rejoin(options.rejoin);
  if (!rejoined) {
    return fail(ErrorKind::kHalfway,
                "the back-up is the primary, and this image not yet its "
                "back-up: " +
                    rejoined.error().message() + ". " + go_on + " goes on");
  }
  outcome.volume = rejoined->volume;
  outcome.store_path = rejoined->store_path;
  return outcome;
}

}  // namespace ckpt
