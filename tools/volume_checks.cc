// SPDX-License-Identifier: Apache-2.0
#include "tools/volume_checks.h"

#include <sys/un.h>

#include "plugin/control_socket.h"
#include "plugin/lost_record.h"
#include "tools/format.h"

namespace ckpt {
namespace {

Check check_image(const VolumeFacts& facts) {
  constexpr const char* kName = "image";
  const ImageFacts& image = facts.image;
  const std::string& path = facts.paths.image;
  if (!image.is_device && !image.is_file) {
    return failed(kName, path + " is neither a regular file nor a block device",
                  "give one of these");
  }
  if (!image.access) {
    return failed(kName, image.access.error().message(),
                  "let this user read and write it, or work as the user who serves it");
  }
  if (image.size_bytes == 0 || image.size_bytes > kDiskBytesMax) {
    return failed(
        kName, path + " has " + std::to_string(image.size_bytes) + " bytes: not the size of a disk",
        "give it its size (truncate -s SIZE), or remove it and serve with size=SIZE");
  }
  if (!image.own.empty()) {
    return failed(kName, path + " is, or is on, " + image.own + ", an NBD device of just its size",
                  "serve what is behind that device, not the export itself");
  }
  if (!image.format.empty()) {
    const std::string detail = path + " looks like a " + image.format + " image";
    const char* advice = "convert it (qemu-img convert -O raw), or serve its bytes with format=raw";
    return facts.has_state ? noted(kName, detail, advice) : failed(kName, detail, advice);
  }
  return passed(kName, path + ", " + format_bytes(image.size_bytes) +
                           (image.is_device ? ", a block device"
                                            : " (" + format_bytes(image.allocated_bytes) +
                                                  " used), on " + image.place.file_system));
}

// Of an image and of a back-up the same: space that was trimmed is given back.
Check check_holes(const char* name, const Place& place) {
  if (place.holes) {
    return passed(name, place.file_system + " gives back what is trimmed");
  }
  const std::string& why = place.holes.error().context;
  return place.holes.error().kind == ErrorKind::kInvalid
             ? noted(name, place.file_system + ": " + why + ": what is trimmed still takes space",
                     "use ext4, xfs, btrfs or tmpfs if space matters")
             : noted(name, "not known: " + place.holes.error().message(),
                     "work as the user who serves the volume, or try another file system");
}

Check check_image_holes(const VolumeFacts& facts) {
  constexpr const char* kName = "image-holes";
  return facts.image.is_device ? passed(kName, "not needed: a block device")
                               : check_holes(kName, facts.image.place);
}

Check check_direct(const VolumeFacts& facts) {
  constexpr const char* kName = "direct-io";
  const Result<>& direct = facts.image.direct;
  if (direct) {
    return passed(kName, "possible (direct=on)");
  }
  return direct.error().kind == ErrorKind::kInvalid
             ? noted(kName, direct.error().message(), "leave direct=on out")
             : noted(kName, "not known: " + direct.error().message(),
                     "work as the user who serves the volume");
}

// What holds of a directory that a server writes in.
std::optional<Check> check_place(const char* name, const Place& place, const Result<>& on_export,
                                 const char* parameter) {
  if (!on_export) {
    return failed(name, on_export.error().message(),
                  std::string("choose another file system: ") + parameter);
  }
  if (!place.is_writable) {
    return failed(name,
                  place.path + (place.exists ? " cannot be written by this user"
                                             : " cannot be made by this user"),
                  std::string("let this user write there, work as the user who serves the volume, "
                              "or choose another: ") +
                      parameter);
  }
  if (place.file_system == "tmpfs" || place.file_system == "ramfs") {
    return noted(name, place.path + " is on a " + place.file_system + ": gone after a reboot",
                 std::string("choose another file system: ") + parameter);
  }
  return std::nullopt;
}

std::string describe(const Place& place) {
  return place.path + (place.exists ? " on " : " will be made, on ") + place.file_system;
}

Check check_state(const VolumeFacts& facts) {
  constexpr const char* kName = "state-directory";
  // Beside its node, in /dev, it would be gone with the boot.
  if (facts.image.is_device && !facts.has_state &&
      facts.paths.state == facts.paths.image + ".ckpt") {
    return failed(kName, facts.paths.image + " is a block device: its state is kept elsewhere",
                  "serve it with state=DIR on another disk, and give --state DIR here");
  }
  if (!facts.has_state && facts.has_backup) {
    return failed(
        kName,
        facts.paths.state + "/volume is missing, and " + facts.backup.path + " holds a back-up",
        advice_on_lost_record(facts.backup.path, facts.backup.path));
  }
  const auto wrong = check_place(kName, facts.state, facts.state_export, "state=DIR");
  return wrong ? *wrong : passed(kName, describe(facts.state));
}

bool has_no_backup(const VolumeFacts& facts) {
  return facts.served && *facts.status && !(*facts.status)->store;
}

Check check_remote(const char* name, const VolumeFacts& facts) {
  const bool says = facts.status && *facts.status && (*facts.status)->store;
  const StoreStatus store = says ? *(*facts.status)->store : StoreStatus{};
  if (!store.error.empty()) {
    return failed(name, facts.remote_backup + ": " + store.error,
                  "see that backupd runs there, can be reached, and what it says");
  }
  return passed(name, facts.remote_backup + (says ? ", which answers" : ""));
}

Check check_backup(const VolumeFacts& facts) {
  constexpr const char* kName = "backup";
  if (has_no_backup(facts)) {
    return noted(kName, "the server runs with backup=none: no checkpoint can be made",
                 "serve without backup=none");
  }
  if (!facts.remote_backup.empty()) {
    return check_remote(kName, facts);
  }
  const auto wrong = check_place(kName, facts.backup, facts.backup_export, "backup=embedded:DIR");
  if (wrong) {
    return *wrong;
  }
  const bool shared = !facts.image.is_device && facts.backup.device == facts.image.place.device;
  return passed(kName, describe(facts.backup) +
                           (shared ? ", the image's own: a disk that fails takes both" : ""));
}

Check check_space(const VolumeFacts& facts) {
  constexpr const char* kName = "backup-space";
  const char* advice = "free some space there, or begin with backup=embedded:DIR on another disk";
  if (has_no_backup(facts)) {
    return passed(kName, "not needed: there is no back-up");
  }
  if (!facts.remote_backup.empty()) {
    return passed(kName, "not needed here: the back-up is at " + facts.remote_backup);
  }
  const BackupRoom& room = facts.room;
  const bool is_first = room.there == 0;
  if (is_first && facts.image.allocated_bytes > room.free) {
    return failed(kName,
                  "the first copy takes up to " + format_bytes(facts.image.allocated_bytes) + ", " +
                      format_bytes(room.free) + " are free in " + room.path,
                  advice);
  }
  const std::string note = space_note(room);
  return note.empty() ? passed(kName, format_bytes(room.free) + " free, enough for a full back-up")
                      : noted(kName, note, advice);
}

Check check_map_space(const VolumeFacts& facts, const Result<MapsPlace>& maps) {
  constexpr const char* kName = "map-space";
  const std::string need = "this disk's written maps take up to " + format_bytes(facts.maps_bytes);
  if (!maps) {
    return failed(kName, need + ", and there is no tmpfs for them", "see written-maps");
  }
  // A running server has part of it already.
  return facts.served || maps->free_bytes >= facts.maps_bytes
             ? passed(kName, need)
             : noted(kName,
                     need + ", " + format_bytes(maps->free_bytes) + " are free in " + maps->path +
                         ": when that is full, a killed server no longer knows "
                         "which blocks had changed, and compares more",
                     "free some space on that tmpfs, or make it larger (mount -o remount,size=)");
}

Check check_socket(const VolumeFacts& facts) {
  constexpr const char* kName = "control-socket";
  const std::string path = facts.paths.state + "/" + kControlSocketName;
  if (path.size() < sizeof(sockaddr_un::sun_path)) {
    return passed(kName, path);
  }
  const std::string detail = path + " is longer than a socket's address (" +
                             std::to_string(sizeof(sockaddr_un::sun_path) - 1) + " bytes)";
  return facts.has_proc ? passed(kName, detail + ": reached through /proc/self/fd")
                        : failed(kName, detail + ", and there is no /proc/self/fd",
                                 "mount /proc, or choose a shorter path: state=DIR");
}

// One that is not running, by its own record.
Check judge_stopped(const VolumeStatus& status) {
  constexpr const char* kName = "server";
  if (status.store && status.store->state == "failed") {
    const std::string detail = "none runs, and the back-up cannot be read: " + status.store->error;
    return status.last_checkpoint
               ? failed(kName, detail, "bring the back-up back to where it was")
               : noted(kName, detail,
                       "it is made when the image is served; with backup=none never");
  }
  return passed(kName, "none runs" + (status.problem.empty() ? "" : ": " + status.problem));
}

Check judge_running(const VolumeStatus& status) {
  constexpr const char* kName = "server";
  constexpr const char* kLook = "see `ckpt-tool status` for more";
  const std::string what =
      status.problem.empty() ? status.state : status.state + ": " + status.problem;
  if (status.state.empty()) {
    return failed(kName, "it does not answer: " + status.problem,
                  "look whether it is stopped or hangs, and start it again");
  }
  if (status.store && status.store->state == "failed") {
    return failed(kName, status.state + ", but its back-up failed: " + status.store->error, kLook);
  }
  return status.problem.empty() && status.state == "running" ? passed(kName, what)
                                                             : noted(kName, what, kLook);
}

Check check_server(const VolumeFacts& facts, const std::string& image) {
  constexpr const char* kName = "server";
  if (!facts.status) {
    return passed(kName, "never served: nbdkit ckpt " + image + " makes a volume of it");
  }
  if (!*facts.status) {
    return failed(kName, facts.status->error().message(),
                  "look at what this names; a server that hangs has to be started again");
  }
  const VolumeStatus& status = **facts.status;
  if (status.state == "fenced") {
    return failed(kName, "fenced: clients are refused since the last rollback",
                  "once no old client has the disk: ckpt-tool accept");
  }
  if (status.state == "diverged") {
    return failed(kName, "diverged: " + status.problem, "decide which side is right");
  }
  if (status.state == "rolling-back") {
    return noted(
        kName,
        std::string("a rollback is under way") + (facts.served ? "" : ", and no server runs"),
        facts.served ? "wait for it" : "serve the image: it goes on first");
  }
  return facts.served ? judge_running(status) : judge_stopped(status);
}

}  // namespace

std::vector<Check> check_volume(const VolumeFacts& facts, const Result<MapsPlace>& maps) {
  std::vector<Check> checks{check_image(facts), check_image_holes(facts), check_direct(facts),
                            check_state(facts), check_socket(facts),      check_backup(facts)};
  if (facts.remote_backup.empty()) {
    checks.push_back(check_holes("backup-holes", facts.backup));
  }
  checks.push_back(check_space(facts));
  checks.push_back(check_map_space(facts, maps));
  checks.push_back(check_server(facts, facts.paths.image));
  return checks;
}

}  // namespace ckpt
