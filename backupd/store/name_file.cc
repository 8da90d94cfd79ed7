// SPDX-License-Identifier: Apache-2.0
#include "backupd/store/name_file.h"

#include "common/volume_name.h"

namespace ckpt {
namespace {

constexpr const char* kNameFile = "name";
constexpr const char* kNewNameFile = "name.new";

Result<> write_whole(Directory& folder, const std::string& text) {
  CKPT_ASSIGN(const auto file, folder.open(kNewNameFile, OpenMode::kCreate));
  CKPT_TRY(file->write(0, std::as_bytes(std::span(text))));
  return file->sync();
}

}  // namespace

Result<> write_name(Directory& folder, const std::string& name) {
  if (auto removed = folder.remove(kNewNameFile);
      !removed && removed.error().kind != ErrorKind::kNotFound) {
    return removed;
  }
  CKPT_TRY(write_whole(folder, name + "\n"));
  CKPT_TRY(folder.rename(kNewNameFile, kNameFile));
  return folder.sync();
}

std::string read_name(Directory& folder) {
  const auto file = folder.open(kNameFile, OpenMode::kRead);
  const auto bytes = file ? (*file)->size() : Result<uint64_t>(Unexpected(file.error()));
  if (!bytes || *bytes < 2 || *bytes > kVolumeNameBytesMax + 1) {
    return "";
  }
  std::string text(*bytes, '\0');
  const bool is_read = (*file)->read(0, std::as_writable_bytes(std::span(text))).has_value();
  const bool is_whole = is_read && text.back() == '\n';
  text.pop_back();
  return is_whole && valid_volume_name(text) ? text : "";
}

}  // namespace ckpt
