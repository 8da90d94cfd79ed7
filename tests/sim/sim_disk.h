// SPDX-License-Identifier: Apache-2.0
// The disk of a simulated machine: directories and files of which the cache and the disk may hold
// different versions. The cache outlives processes; only what was synced is sure to outlive the
// power.
//
// Every operation is a yield point, before it and, when it is large, in its middle. A handle
// belongs to the process that opened it, and does nothing any more once that was killed.
//
// What a loss of power leaves: of a file's pages that were not synced each is kept, dropped or torn
// into sectors, independently; its size old, new or between; of a directory's changes that were not
// synced the first few, in order. A change is one entry made or removed, or a rename, whole.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "common/file.h"
#include "tests/sim/faults.h"
#include "tests/sim/inode.h"
#include "tests/sim/scheduler.h"

namespace ckpt::sim {

struct DiskOptions {
  std::string name = "disk";  // for messages
  uint64_t device = 1;
  uint64_t capacity_bytes = uint64_t{1} << 40U;
  bool tells_holes = true;  // otherwise next_data() calls everything data
};

struct DirectoryNode;

// What somebody has copied of a directory: content only.
struct DirectoryCopy {
  std::map<std::string, std::vector<std::byte>> files;
  std::map<std::string, DirectoryCopy> directories;
};

// What a name in a directory stands for: one of the two.
struct Entry {
  std::shared_ptr<Inode> file;  // shared by the cached and the durable directory and by handles
  std::shared_ptr<DirectoryNode> directory;
};

// One change of a directory: the names that it makes or (without an entry) removes.
using DirectoryChange = std::vector<std::pair<std::string, std::optional<Entry>>>;

struct DirectoryNode {
  std::map<std::string, Entry> cached;
  std::map<std::string, Entry> durable;
  std::vector<DirectoryChange> unsynced;
  void change(DirectoryChange what);
};

// A write that has begun; lives on the stack of its fiber.
struct InFlight {
  ProcessId process = kHarness;
  const char* path = "";
  std::shared_ptr<Inode> inode;
  uint64_t offset = 0;
  ConstByteSpan rest;
};

class SimDisk final : private ProcessListener {
 public:
  SimDisk(Scheduler& scheduler, DiskOptions options, SeededRandom random);
  ~SimDisk() override;
  SimDisk(const SimDisk&) = delete;
  SimDisk& operator=(const SimDisk&) = delete;

  // A handle of the calling fiber's process.
  std::unique_ptr<Directory> root();

  // ---- what happens to the machine; from outside of fibers, or from the harness's own

  // Every process that has files open must have been killed.
  void power_loss();
  // Of the pages that killed processes were still writing, some land now, the others never. To be
  // called before the image's lock is given to anybody else.
  void land_zombies();
  // Some land now; the others may land later.
  void land_some_zombies();
  void set_capacity_bytes(uint64_t bytes) { space_.capacity_bytes = bytes; }
  // Null: nothing fails. Outlives the disk, or is taken away before.
  void set_faults(FaultPolicy* faults) { faults_ = faults; }

  // ---- what the oracle sees; no yield points; nothing if there is no such file

  [[nodiscard]] std::optional<std::vector<std::byte>> cached(const std::string& path) const;
  // As a loss of power at this instant could leave it at worst: only what was synced (and what
  // chance wrote back). The entry itself may still not be durable.
  [[nodiscard]] std::optional<std::vector<std::byte>> durable(const std::string& path) const;
  // Names in a directory; none if there is no such directory.
  [[nodiscard]] std::vector<std::string> list(const std::string& path) const;
  // 0 beyond the end, or if there is no such file.
  [[nodiscard]] std::byte durable_byte(const std::string& path, uint64_t offset) const;
  // Whether a loss of power would leave the file's content as it is.
  [[nodiscard]] bool is_clean(const std::string& path) const;
  // Of a part of its content.
  [[nodiscard]] bool is_clean(const std::string& path, ByteRange range) const;
  // Another program overwrites a part of a file, durably, and the stamps show it.
  void tamper(const std::string& path, uint64_t offset, ConstByteSpan bytes);
  // Another program puts a copy of a file in its place, durably: another inode.
  void replace(const std::string& path, ConstByteSpan bytes);
  // A copy of a directory as programs see it.
  [[nodiscard]] DirectoryCopy copy(const std::string& path) const;
  // Another program puts a copy in the place of a directory, durably. Nobody has a file of it open.
  void put_back(const std::string& path, const DirectoryCopy& copy);
  [[nodiscard]] uint64_t free_bytes() const { return space_.free_bytes(); }
  [[nodiscard]] uint64_t used_bytes() const { return space_.used_bytes; }

 private:
  friend class SimFile;
  friend class SimDirectory;

  struct Zombie {
    std::shared_ptr<Inode> inode;
    const char* path = "";
    uint64_t offset = 0;
    std::vector<std::byte> bytes;  // within a page
  };

  void on_kill(ProcessId process) override;
  void on_killed(ProcessId /*process*/) override {}

  // Yields, and says why the operation may not or does not happen.
  Result<> enter(YieldKind kind, const char* label, ProcessId owner, const DiskAccess& access);
  [[nodiscard]] WallTime stamp_time() const;
  std::shared_ptr<Inode> new_inode();
  const char* intern(const std::string& text) { return paths_.insert(text).first->c_str(); }
  [[nodiscard]] std::shared_ptr<Inode> find(const std::string& path) const;
  [[nodiscard]] DirectoryNode* find_parent(const std::string& path, std::string* name) const;
  void lose_directory(DirectoryNode& directory, std::set<Inode*>& reached);
  void land(const Zombie& zombie);
  static void unlink_all(DirectoryNode& directory);
  std::shared_ptr<DirectoryNode> make_directory(const DirectoryCopy& copy);

  Scheduler& scheduler_;  // outlives the disk
  DiskOptions options_;
  SeededRandom random_;
  Space space_;
  FaultPolicy* faults_ = nullptr;
  std::shared_ptr<DirectoryNode> root_ = std::make_shared<DirectoryNode>();
  std::vector<InFlight*> in_flight_;
  std::vector<Zombie> zombies_;
  std::vector<std::weak_ptr<Inode>> inodes_;
  std::set<std::string> paths_;
  uint64_t last_inode_ = 11;  // ext4's first free one is 12
};

}  // namespace ckpt::sim
