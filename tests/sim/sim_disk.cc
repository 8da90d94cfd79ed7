// SPDX-License-Identifier: Apache-2.0
#include "tests/sim/sim_disk.h"

#include <algorithm>
#include <cerrno>

#include "tests/sim/sim_file.h"

namespace ckpt::sim {
namespace {

// File stamps have the time of the kernel's last tick (CONFIG_HZ=250).
constexpr WallTime kTick = std::chrono::milliseconds(4);

void apply_change(const DirectoryChange& change, std::map<std::string, Entry>& entries) {
  for (const auto& [name, entry] : change) {
    if (entry) {
      entries[name] = *entry;
    } else {
      entries.erase(name);
    }
  }
}

DirectoryCopy copy_of(const DirectoryNode& directory) {
  DirectoryCopy copy;
  for (const auto& [name, entry] : directory.cached) {
    if (entry.directory) {
      copy.directories[name] = copy_of(*entry.directory);
    } else {
      copy.files[name] = entry.file->content();
    }
  }
  return copy;
}

}  // namespace

void DirectoryNode::change(DirectoryChange what) {
  apply_change(what, cached);
  unsynced.push_back(std::move(what));
}

SimDisk::SimDisk(Scheduler& scheduler, DiskOptions options, SeededRandom random)
    : scheduler_(scheduler), options_(std::move(options)), random_(random) {
  space_.capacity_bytes = options_.capacity_bytes;
  scheduler_.add_listener(this);
}

SimDisk::~SimDisk() { scheduler_.remove_listener(this); }

std::unique_ptr<Directory> SimDisk::root() {
  return std::make_unique<SimDirectory>(*this, root_, "");
}

Result<> SimDisk::enter(YieldKind kind, const char* label, ProcessId owner,
                        const DiskAccess& access) {
  scheduler_.yield(kind, label);
  if (scheduler_.dying() || !scheduler_.alive(owner)) {
    return fail(ErrorKind::kIo, "the process was killed");
  }
  const int number = faults_ != nullptr ? faults_->fault(access) : 0;
  if (number != 0) {
    scheduler_.event("fault", intern(std::string(access.path)), access.range.offset,
                     access.range.length);
    return fail_errno(number, std::string(label) + " " + std::string(access.path));
  }
  return {};
}

WallTime SimDisk::stamp_time() const {
  const WallTime now = scheduler_.clock().wall();
  return now - now % kTick;
}

std::shared_ptr<Inode> SimDisk::new_inode() {
  auto inode = std::make_shared<Inode>(space_, ++last_inode_, options_.device, stamp_time());
  inode->link();
  return inode;
}

// ---- what happens to the machine

void SimDisk::on_kill(ProcessId process) {
  for (const InFlight* const write : in_flight_) {
    if (write->process != process) {
      continue;
    }
    uint64_t offset = write->offset;
    ConstByteSpan rest = write->rest;
    while (!rest.empty()) {
      const size_t count = std::min(rest.size(), kPageBytes - offset % kPageBytes);
      const ConstByteSpan bytes = rest.first(count);
      zombies_.push_back(
          {write->inode, write->path, offset, std::vector<std::byte>(bytes.begin(), bytes.end())});
      offset += count;
      rest = rest.subspan(count);
    }
  }
}

void SimDisk::land(const Zombie& zombie) {
  scheduler_.event("zombie lands", zombie.path, zombie.offset, zombie.bytes.size());
  zombie.inode->write(zombie.offset, zombie.bytes, stamp_time(), random_);
}

void SimDisk::land_some_zombies() {
  std::vector<Zombie> left;
  for (Zombie& zombie : zombies_) {
    if (random_.one_in(2)) {
      land(zombie);
    } else {
      left.push_back(std::move(zombie));
    }
  }
  zombies_ = std::move(left);
}

void SimDisk::land_zombies() {
  land_some_zombies();
  zombies_.clear();
}

void SimDisk::power_loss() {
  scheduler_.event("power loss", options_.name.c_str());
  land_zombies();
  std::set<Inode*> reached;
  lose_directory(*root_, reached);
  for (const std::weak_ptr<Inode>& known : inodes_) {
    if (const std::shared_ptr<Inode> inode = known.lock()) {
      inode->recount(reached.contains(inode.get()));
    }
  }
  std::erase_if(inodes_, [](const auto& known) { return known.expired(); });
}

void SimDisk::lose_directory(DirectoryNode& directory, std::set<Inode*>& reached) {
  const uint64_t kept = random_.between(0, directory.unsynced.size());
  for (uint64_t i = 0; i < kept; ++i) {
    apply_change(directory.unsynced[i], directory.durable);
  }
  directory.unsynced.clear();
  directory.cached = directory.durable;
  for (auto& [name, entry] : directory.durable) {
    if (entry.directory) {
      lose_directory(*entry.directory, reached);
    } else if (reached.insert(entry.file.get()).second) {
      entry.file->lose_power(random_);
    }
  }
}

// ---- what the oracle sees

DirectoryNode* SimDisk::find_parent(const std::string& path, std::string* name) const {
  DirectoryNode* directory = root_.get();
  size_t begin = 0;
  for (size_t slash = path.find('/'); slash != std::string::npos; slash = path.find('/', begin)) {
    const auto entry = directory->cached.find(path.substr(begin, slash - begin));
    if (entry == directory->cached.end() || !entry->second.directory) {
      return nullptr;
    }
    directory = entry->second.directory.get();
    begin = slash + 1;
  }
  *name = path.substr(begin);
  return directory;
}

std::shared_ptr<Inode> SimDisk::find(const std::string& path) const {
  std::string name;
  const DirectoryNode* const parent = find_parent(path, &name);
  if (parent == nullptr) {
    return nullptr;
  }
  const auto entry = parent->cached.find(name);
  return entry == parent->cached.end() ? nullptr : entry->second.file;
}

std::optional<std::vector<std::byte>> SimDisk::cached(const std::string& path) const {
  const std::shared_ptr<Inode> inode = find(path);
  return inode ? std::optional(inode->content()) : std::nullopt;
}

std::optional<std::vector<std::byte>> SimDisk::durable(const std::string& path) const {
  const std::shared_ptr<Inode> inode = find(path);
  return inode ? std::optional(inode->durable_content()) : std::nullopt;
}

std::vector<std::string> SimDisk::list(const std::string& path) const {
  std::string name;
  const DirectoryNode* const parent = find_parent(path, &name);
  std::vector<std::string> names;
  if (parent != nullptr && parent->cached.contains(name) && parent->cached.at(name).directory) {
    for (const auto& [entry_name, entry] : parent->cached.at(name).directory->cached) {
      names.push_back(entry_name);
    }
  }
  return names;
}

std::byte SimDisk::durable_byte(const std::string& path, uint64_t offset) const {
  const std::shared_ptr<Inode> inode = find(path);
  return inode ? inode->durable_byte(offset) : std::byte{0};
}

bool SimDisk::is_clean(const std::string& path) const {
  const std::shared_ptr<Inode> inode = find(path);
  return inode == nullptr || inode->is_clean();
}

bool SimDisk::is_clean(const std::string& path, ByteRange range) const {
  const std::shared_ptr<Inode> inode = find(path);
  return inode == nullptr || inode->is_clean(range);
}

void SimDisk::tamper(const std::string& path, uint64_t offset, ConstByteSpan bytes) {
  const std::shared_ptr<Inode> inode = find(path);
  CKPT_CHECK(inode != nullptr);
  inode->tamper(offset, bytes, stamp_time());
}

void SimDisk::replace(const std::string& path, ConstByteSpan bytes) {
  std::string name;
  DirectoryNode* const parent = find_parent(path, &name);
  CKPT_CHECK(parent != nullptr);
  if (const std::shared_ptr<Inode> old = find(path)) {
    old->unlink();
  }
  const std::shared_ptr<Inode> inode = new_inode();
  inodes_.push_back(inode);
  inode->tamper(0, bytes, stamp_time());
  parent->cached[name] = parent->durable[name] = Entry{inode, nullptr};
}

DirectoryCopy SimDisk::copy(const std::string& path) const {
  std::string name;
  const DirectoryNode* const parent = find_parent(path, &name);
  CKPT_CHECK(parent != nullptr && parent->cached.contains(name));
  return copy_of(*parent->cached.at(name).directory);
}

void SimDisk::unlink_all(DirectoryNode& directory) {
  for (auto& [name, entry] : directory.cached) {
    if (entry.directory) {
      unlink_all(*entry.directory);
    } else {
      entry.file->unlink();
    }
  }
}

std::shared_ptr<DirectoryNode> SimDisk::make_directory(const DirectoryCopy& copy) {
  auto made = std::make_shared<DirectoryNode>();
  for (const auto& [name, bytes] : copy.files) {
    const std::shared_ptr<Inode> inode = new_inode();
    inodes_.push_back(inode);
    inode->tamper(0, bytes, stamp_time());
    made->cached[name] = Entry{inode, nullptr};
  }
  for (const auto& [name, directory] : copy.directories) {
    made->cached[name] = Entry{nullptr, make_directory(directory)};
  }
  made->durable = made->cached;
  return made;
}

void SimDisk::put_back(const std::string& path, const DirectoryCopy& copy) {
  std::string name;
  DirectoryNode* const parent = find_parent(path, &name);
  CKPT_CHECK(parent != nullptr && parent->cached.contains(name));
  unlink_all(*parent->cached.at(name).directory);
  parent->cached[name] = parent->durable[name] = Entry{nullptr, make_directory(copy)};
}

}  // namespace ckpt::sim
