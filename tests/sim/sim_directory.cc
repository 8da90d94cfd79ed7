// SPDX-License-Identifier: Apache-2.0
#include <cerrno>

#include "tests/sim/sim_file.h"

namespace ckpt::sim {

SimDirectory::SimDirectory(SimDisk& disk, std::shared_ptr<DirectoryNode> node, std::string path)
    : disk_(disk),
      node_(std::move(node)),
      path_(std::move(path)),
      process_(disk.scheduler_.process()) {}

std::string SimDirectory::path_of(const std::string& name) const {
  return path_.empty() ? name : path_ + "/" + name;
}

Unexpected SimDirectory::error(int number, const char* act, const std::string& name) const {
  return fail_errno(number, std::string(act) + " " + path_of(name));
}

Result<> SimDirectory::enter(DiskOperation operation, const char* label, const std::string& name) {
  const std::string path = path_of(name);
  CKPT_TRY(disk_.enter(YieldKind::kDirectory, label, process_, {operation, path, {}}));
  disk_.scheduler_.event(label, disk_.intern(path));
  return {};
}

std::unique_ptr<File> SimDirectory::create_file(const std::string& name) {
  const std::shared_ptr<Inode> inode = disk_.new_inode();
  disk_.inodes_.push_back(inode);
  node_->change({{name, Entry{inode, nullptr}}});
  return std::make_unique<SimFile>(disk_, inode, disk_.intern(path_of(name)), true);
}

Result<std::unique_ptr<File>> SimDirectory::open(const std::string& name, OpenMode mode) {
  const bool create = mode == OpenMode::kCreate;
  CKPT_TRY(enter(create ? DiskOperation::kCreate : DiskOperation::kOpen, create ? "create" : "open",
                 name));
  const auto entry = node_->cached.find(name);
  const bool exists = entry != node_->cached.end();
  if (create) {
    return exists ? Result<std::unique_ptr<File>>(error(EEXIST, "create", name))
                  : Result<std::unique_ptr<File>>(create_file(name));
  }
  if (!exists || !entry->second.file) {
    return error(exists ? EISDIR : ENOENT, "open", name);
  }
  return std::unique_ptr<File>(std::make_unique<SimFile>(disk_, entry->second.file,
                                                         disk_.intern(path_of(name)),
                                                         mode == OpenMode::kReadWrite));
}

Result<std::unique_ptr<Directory>> SimDirectory::subdirectory(const std::string& name,
                                                              bool create) {
  CKPT_TRY(enter(DiskOperation::kOpen, "subdirectory", name));
  auto entry = node_->cached.find(name);
  if (entry == node_->cached.end()) {
    if (!create) {
      return error(ENOENT, "open", name);
    }
    node_->change({{name, Entry{nullptr, std::make_shared<DirectoryNode>()}}});
    entry = node_->cached.find(name);
  }
  if (!entry->second.directory) {
    return error(ENOTDIR, "open", name);
  }
  return std::unique_ptr<Directory>(
      std::make_unique<SimDirectory>(disk_, entry->second.directory, path_of(name)));
}

Result<> SimDirectory::remove(const std::string& name) {
  CKPT_TRY(enter(DiskOperation::kRemove, "remove", name));
  const auto entry = node_->cached.find(name);
  if (entry == node_->cached.end() || !entry->second.file) {
    return error(ENOENT, "unlink", name);
  }
  entry->second.file->unlink();
  node_->change({{name, std::nullopt}});
  return {};
}

Result<> SimDirectory::rename(const std::string& from, const std::string& to) {
  CKPT_TRY(enter(DiskOperation::kRename, "rename", from));
  const auto entry = node_->cached.find(from);
  if (entry == node_->cached.end()) {
    return error(ENOENT, "rename", from);
  }
  if (from == to) {
    return {};
  }
  const auto replaced = node_->cached.find(to);
  if (replaced != node_->cached.end() && replaced->second.file) {
    replaced->second.file->unlink();
  }
  node_->change({{from, std::nullopt}, {to, entry->second}});
  return {};
}

Result<std::vector<std::string>> SimDirectory::list() {
  CKPT_TRY(enter(DiskOperation::kQuery, "list", "."));
  std::vector<std::string> names;
  for (const auto& [name, entry] : node_->cached) {
    names.push_back(name);
  }
  return names;
}

Result<> SimDirectory::sync() {
  CKPT_TRY(enter(DiskOperation::kDirectorySync, "sync directory", "."));
  node_->durable = node_->cached;
  node_->unsynced.clear();
  return {};
}

Result<uint64_t> SimDirectory::free_bytes() {
  CKPT_TRY(enter(DiskOperation::kQuery, "free bytes", "."));
  return disk_.space_.free_bytes();
}

}  // namespace ckpt::sim
