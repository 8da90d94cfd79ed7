// SPDX-License-Identifier: Apache-2.0
#include "tools/open_volume.h"

#include <filesystem>

#include "backupd/store/name_file.h"
#include "common/posix_file.h"
#include "plugin/backup_place.h"
#include "plugin/control_socket.h"
#include "plugin/lost_record.h"
#include "plugin/offline_volume.h"
#include "plugin/store_volume.h"
#include "tools/backup_name.h"
#include "tools/client.h"

namespace ckpt {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kStateSuffix = ".ckpt";

// Errors of the file system read as "no": what matters is named in the error that follows.
bool is_directory(const std::string& path) {
  std::error_code ignored;
  return fs::is_directory(path, ignored);
}

bool exists(const std::string& path) {
  std::error_code ignored;
  return fs::exists(path, ignored);
}

bool is_state_directory(const std::string& path) { return exists(path + "/volume"); }

// Absolute and without a slash at the end; symbolic links and ".." stay what they are.
std::string absolute(const std::string& path) {
  std::error_code ignored;
  std::string whole = fs::absolute(path, ignored).string();
  while (whole.size() > 1 && whole.back() == '/') {
    whole.pop_back();
  }
  return whole;
}

// The same file by its real path, if it is another.
std::string resolved(const std::string& path) {
  std::error_code failed;
  const fs::path real = fs::canonical(path, failed);
  return failed ? path : real.string();
}

bool is_store(const std::string& path) {
  return exists(path + "/backup.img") && exists(path + "/volume");
}

// SHELF/NAME, of a store in the folder of this machine's backupd: its folder, by what the volume is
// called there. Empty: there is none. kBusy: several are called so.
Result<std::string> find_on_shelf(const fs::path& path) {
  std::string found;
  std::error_code failed;
  for (const fs::directory_entry& entry : fs::directory_iterator(path.parent_path(), failed)) {
    const std::string folder = entry.path().string();
    if (!Uuid::parse(entry.path().filename().string()) || !is_store(folder)) {
      continue;
    }
    const auto directory = PosixDirectory::open(folder, false, RingUse{});
    if (!directory || read_name(**directory) != path.filename().string()) {
      continue;
    }
    if (!found.empty()) {
      return fail(ErrorKind::kBusy, path.string() + ": " + found + " and " + folder +
                                        " are both called so: give one of these");
    }
    found = folder;
  }
  return found;
}

Result<VolumePaths> from_backup_name(const BackupName& named, const VolumeName& name) {
  VolumePaths paths{"", name.path, true};
  CKPT_ASSIGN(paths.remote, choose_remote_place(named.address.to_string(), name.tls, ""));
  paths.remote->volume = named.volume;
  paths.remote_name = named.name;
  return paths;
}

// Which the user has called by its name, or not said.
Result<Uuid> find_remote(const VolumePaths& paths) {
  if (!paths.remote->volume.is_nil()) {
    return paths.remote->volume;
  }
  if (paths.remote_name.empty()) {
    return fail(ErrorKind::kInvalid,
                paths.state + " is a back-up of many volumes: give " + paths.state + "/NAME or " +
                    paths.state + "/UUID; ckpt-tool list " + paths.state + " says which there are");
  }
  return find_named_volume(*paths.remote, paths.remote_name);
}

// A folder without the file that says of which volume it is.
Unexpected no_record(const std::string& state) {
  const std::string store = state + "/store";
  if (is_store(store)) {
    return fail(ErrorKind::kNotFound, state + "/volume is missing, and a back-up is there: " +
                                          advice_on_lost_record(store, state));
  }
  return fail(ErrorKind::kNotFound,
              state +
                  " is a directory, but no state directory (it holds no file `volume`): give "
                  "the primary image, or its state directory IMAGE.ckpt");
}

Result<VolumePaths> from_state_directory(const std::string& state) {
  if (!is_directory(state)) {
    return fail(ErrorKind::kNotFound, state + ": there is no such state directory");
  }
  if (!is_state_directory(state)) {
    return no_record(state);
  }
  VolumePaths paths{"", state};
  if (state.ends_with(kStateSuffix)) {
    paths.image = state.substr(0, state.size() - kStateSuffix.size());
  }
  return paths;
}

Result<VolumePaths> from_image(const std::string& image) {
  // The server may have been given the image by a symbolic link, or by its real path.
  for (const std::string& candidate : {image, resolved(image)}) {
    const std::string state = candidate + std::string(kStateSuffix);
    if (is_state_directory(state)) {
      return VolumePaths{candidate, state};
    }
  }
  if (!exists(image)) {
    return fail(ErrorKind::kNotFound, image + ": there is no such image or state directory");
  }
  const std::string state = resolved(image) + std::string(kStateSuffix);
  if (is_store(state + "/store")) {
    return no_record(state);
  }
  return fail(ErrorKind::kNotFound,
              image + std::string(kStateSuffix) +
                  ": there is no such state directory: serve the image first (nbdkit ckpt " +
                  image + "), or say where its state is (--state DIR)");
}

Result<std::unique_ptr<VolumeApi>> open_here(const VolumePaths& paths, const VolumeName& name) {
  if (paths.image.empty()) {
    return fail(ErrorKind::kInvalid, paths.state +
                                         ": no server runs, and this does not say where the image "
                                         "is: give the image, and --state " +
                                         paths.state);
  }
  return open_offline(paths.image, paths.state, name.backup, name.tls);
}

}  // namespace

Result<VolumePaths> find_volume(const VolumeName& name) {
  if (const auto named = parse_backup_name(name.path)) {
    return from_backup_name(*named, name);
  }
  const std::string path = absolute(name.path);
  if (is_store(path)) {
    return VolumePaths{"", path, true, std::nullopt};
  }
  const bool has_state =
      !name.state.empty() || is_state_directory(path + std::string(kStateSuffix));
  if (!exists(path) && !has_state) {
    CKPT_ASSIGN(const std::string folder, find_on_shelf(path));
    if (!folder.empty()) {
      return VolumePaths{"", folder, true, std::nullopt};
    }
  }
  if (!name.state.empty()) {
    const std::string state = absolute(name.state);
    CKPT_TRY(from_state_directory(state));
    return VolumePaths{path, state};
  }
  return is_directory(path) ? from_state_directory(path) : from_image(path);
}

Result<VolumePaths> find_candidate(const VolumeName& name) {
  auto paths = find_volume(name);
  const std::string image = absolute(name.path);
  if (paths || is_directory(image) || !exists(image)) {
    return paths;
  }
  return VolumePaths{image,
                     name.state.empty() ? image + std::string(kStateSuffix) : absolute(name.state)};
}

Result<> require_primary(const VolumePaths& paths) {
  return paths.is_store ? fail(ErrorKind::kInvalid,
                               paths.state + " is a back-up by itself: give the primary image")
                        : Result<>();
}

Result<OpenedVolume> open_volume(const VolumeName& name) {
  CKPT_ASSIGN(VolumePaths paths, find_volume(name));
  if (paths.remote) {
    CKPT_ASSIGN(paths.remote->volume, find_remote(paths));
    return OpenedVolume{open_remote_volume(*paths.remote), false, paths};
  }
  if (paths.is_store) {
    CKPT_ASSIGN(std::unique_ptr<VolumeApi> store, open_store_volume(paths.state));
    return OpenedVolume{std::move(store), false, paths};
  }
  const auto connection = ControlConnection::connect(paths.state);
  if (connection) {
    return OpenedVolume{std::make_unique<RemoteVolume>(paths.state), true, paths};
  }
  if (connection.error().kind != ErrorKind::kNotFound) {
    return Unexpected(connection.error());
  }
  CKPT_ASSIGN(std::unique_ptr<VolumeApi> volume, open_here(paths, name));
  return OpenedVolume{std::move(volume), false, paths};
}

}  // namespace ckpt
