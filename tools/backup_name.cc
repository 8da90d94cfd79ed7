// SPDX-License-Identifier: Apache-2.0
#include "tools/backup_name.h"

#include <filesystem>

#include "plugin/remote_volumes.h"

namespace ckpt {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kUnix = "unix:";

// Whether what is before the last slash cannot be a socket, or all of it is one.
bool is_socket_alone(const std::string& text, size_t slash) {
  if (!text.starts_with(kUnix)) {
    return false;
  }
  std::error_code ignored;
  const auto path = [&](size_t end) { return fs::path(text.substr(0, end).substr(kUnix.size())); };
  return fs::is_socket(path(text.size()), ignored) || fs::is_directory(path(slash), ignored);
}

std::string advice(const RemoteOptions& options) {
  return "; ckpt-tool list " + options.address.to_string() + " says which volumes there are";
}

}  // namespace

std::optional<BackupName> parse_backup_name(const std::string& text) {
  std::error_code ignored;
  if (fs::exists(text, ignored)) {
    return std::nullopt;
  }
  const size_t slash = text.rfind('/');
  const bool is_alone = slash == std::string::npos || is_socket_alone(text, slash);
  const auto address = parse_address(is_alone ? text : text.substr(0, slash));
  const std::string name = is_alone ? "" : text.substr(slash + 1);
  const auto volume = Uuid::parse(name);
  if (!address || (!is_alone && !volume && !valid_volume_name(name))) {
    return std::nullopt;
  }
  return volume ? BackupName{*address, *volume} : BackupName{*address, Uuid{}, name};
}

Result<Uuid> find_named_volume(const RemoteOptions& options, const std::string& name) {
  CKPT_ASSIGN(const auto found, list_remote_volumes(options, name));
  const std::string address = options.address.to_string();
  if (found.empty()) {
    return fail(ErrorKind::kNotFound, address + " has no volume called " + name + advice(options));
  }
  if (found.size() > 1) {
    return fail(ErrorKind::kBusy, address + " has " + std::to_string(found.size()) +
                                      " volumes called " + name + ": give " + address + "/" +
                                      found[0].volume.to_string() + ", or another UUID" +
                                      advice(options));
  }
  return found[0].volume;
}

}  // namespace ckpt
