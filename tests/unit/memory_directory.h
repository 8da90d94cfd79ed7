// SPDX-License-Identifier: Apache-2.0
// Files and directories in memory, with what is cached and what is durable kept apart: the n-th
// operation can fail, power can be lost at any operation, space can run out.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "common/file.h"

namespace ckpt::test {

class MemoryDisk;

// A file's content. Outlives its handles and its names.
struct MemoryNode {
  std::vector<std::byte> cached;
  std::vector<std::byte> durable;
  std::set<uint64_t> dirty_sectors;
  bool is_size_dirty = false;
  std::set<uint64_t> allocated_pages;  // take space
  std::set<uint64_t> written_pages;    // those of them that SEEK_DATA finds
  int handles = 0;  // open ones: without any, and without a name, its space is free
};

struct MemoryFolder;
struct MemoryEntry {
  std::shared_ptr<MemoryNode> file;
  std::shared_ptr<MemoryFolder> folder;
};
using MemoryEntries = std::map<std::string, MemoryEntry>;

// A directory's content.
struct MemoryFolder {
  std::string path;
  MemoryEntries cached;
  std::vector<MemoryEntries>
      since_sync;  // after each change, oldest first: power loss keeps a prefix
  MemoryEntries durable;
};

// One change or sync of a file or directory, for those who watch.
struct MemoryOperation {
  std::string
      act;  // write, sync, allocate, zero, punch, resize, create, remove, rename, sync directory,
            // let go
  std::string path;
  ByteRange range;
};

// A machine's disk. Handles from before a reboot fail for good.
//
// Threads: one at a time.
class MemoryDisk {
 public:
  MemoryDisk();
  std::unique_ptr<Directory> root();

  // Counts what changes or syncs something, from the last call of one of the next three.
  [[nodiscard]] uint64_t operations() const { return operations_; }
  void count_from_here();
  // The nth operation from now (1: the next) fails with errno, once. A sync that fails has lost
  // what it was to write, though reads still show it.
  void fail_operation(uint64_t nth, int number);
  // At the nth operation from now the machine stops: that one may be done in the cache, none after
  // it is.
  void stop_at(uint64_t nth);
  [[nodiscard]] bool has_stopped() const { return stopped_; }

  // Power is lost and comes back. What was not synced: 0 lost, 1 kept, else sector by sector by
  // this seed.
  void lose_power(uint64_t seed);
  // The process is killed, and another started: nothing is lost.
  void restart_process();

  void set_capacity(std::optional<uint64_t> bytes) { capacity_ = bytes; }
  [[nodiscard]] uint64_t used_bytes() const;
  void set_watcher(std::function<void(const MemoryOperation&)> watcher) {
    watcher_ = std::move(watcher);
  }

  // Content as a process sees it, by path ("journal/7"); for looking at and for damaging, which is
  // durable.
  std::vector<std::byte>& content(const std::string& path);
  void damage(const std::string& path, const std::function<void(std::vector<std::byte>&)>& change);
  // All files, path to content: to see whether anything was modified.
  std::map<std::string, std::vector<std::byte>> snapshot() const;

 private:
  friend class MemoryFile;
  friend class MemoryDirectory;

  enum class Fate { kDone, kFailed, kLast };
  // What becomes of the next operation; the error is set if it is not done.
  Fate begin(const MemoryOperation& operation, std::optional<Error>& error);
  [[nodiscard]] std::shared_ptr<MemoryNode> new_node();
  [[nodiscard]] bool take_space(MemoryNode& node, ByteRange range);
  std::shared_ptr<MemoryNode> find(const std::string& path) const;

  std::shared_ptr<MemoryFolder> root_;
  std::vector<std::weak_ptr<MemoryNode>> nodes_;
  uint64_t boot_ = 1;
  uint64_t operations_ = 0;
  uint64_t fail_at_ = 0;
  int fail_number_ = 0;
  uint64_t stop_at_ = 0;
  bool stopped_ = false;
  std::optional<uint64_t> capacity_;
  std::function<void(const MemoryOperation&)> watcher_;
};

}  // namespace ckpt::test
