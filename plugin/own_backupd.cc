// SPDX-License-Identifier: Apache-2.0
#include "plugin/own_backupd.h"

#include <fcntl.h>

#include <filesystem>

#include "common/store_dialer.h"

namespace ckpt {

std::optional<OwnBackupd> own_backupd(const std::string& store_path,
                                      const std::optional<Address>& said) {
  std::error_code ignored;
  const std::filesystem::path folder = std::filesystem::canonical(store_path, ignored);
  const auto volume = Uuid::parse(folder.filename().string());
  if (!volume) {
    return std::nullopt;
  }
  const std::string shelf = folder.parent_path().string();
  OwnBackupd own;
  own.volume = *volume;
  own.above.reset(::open(shelf.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
  own.address = said.value_or(Address{
      "/proc/self/fd/" + std::to_string(own.above.get()) + "/" + kBackupdSocketName, "", ""});
  own.shown = said ? said->to_string() : shelf + "/" + kBackupdSocketName;
  return own;
}

}  // namespace ckpt
