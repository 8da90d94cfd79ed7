// SPDX-License-Identifier: Apache-2.0
#include "tests/unit/memory_directory.h"

#include <algorithm>
#include <cerrno>

namespace ckpt::test {
namespace {

constexpr uint64_t kSectorBytes = 512;
constexpr uint64_t kPageBytes = 4096;

// splitmix64: enough to choose by.
uint64_t next_random(uint64_t& state) {
  state += 0x9e3779b97f4a7c15U;
  uint64_t value = state;
  value = (value ^ (value >> 30U)) * 0xbf58476d1ce4e5b9U;
  value = (value ^ (value >> 27U)) * 0x94d049bb133111ebU;
  return value ^ (value >> 31U);
}

// Whether something that was not synced survives.
bool survives(uint64_t seed, uint64_t& state) {
  return seed == 1 || (seed > 1 && next_random(state) % 2 == 0);
}

// How many units it takes to come to an offset.
uint64_t units_to(uint64_t offset, uint64_t unit_bytes) {
  return (offset + unit_bytes - 1) / unit_bytes;
}

// Adds first to end - 1. Most are there already: a test that writes again and again must not search
// for, or allocate, each of them.
void add_range(std::set<uint64_t>& numbers, uint64_t first, uint64_t end) {
  auto next = numbers.lower_bound(first);
  for (uint64_t number = first; number < end; ++number) {
    if (next != numbers.end() && *next == number) {
      ++next;
    } else {
      numbers.insert(next, number);
    }
  }
}

void remove_range(std::set<uint64_t>& numbers, uint64_t first, uint64_t end) {
  if (first < end) {
    numbers.erase(numbers.lower_bound(first), numbers.lower_bound(end));
  }
}

uint64_t count_in_range(const std::set<uint64_t>& numbers, uint64_t first, uint64_t end) {
  return first < end ? static_cast<uint64_t>(
                           std::distance(numbers.lower_bound(first), numbers.lower_bound(end)))
                     : 0;
}

void copy_sector(const std::vector<std::byte>& from, std::vector<std::byte>& to, uint64_t sector) {
  const uint64_t begin = sector * kSectorBytes;
  const uint64_t end = std::min<uint64_t>({begin + kSectorBytes, from.size(), to.size()});
  if (begin < end) {
    std::copy(from.begin() + static_cast<ptrdiff_t>(begin),
              from.begin() + static_cast<ptrdiff_t>(end),
              to.begin() + static_cast<ptrdiff_t>(begin));
  }
}

void sync_node(MemoryNode& node) {
  node.durable.resize(node.cached.size());
  for (const uint64_t sector : node.dirty_sectors) {
    copy_sector(node.cached, node.durable, sector);
  }
  node.dirty_sectors.clear();
  node.is_size_dirty = false;
}

void lose_unsynced(MemoryNode& node, uint64_t seed, uint64_t& state) {
  if (node.is_size_dirty && survives(seed, state)) {
    node.durable.resize(node.cached.size());
  }
  for (const uint64_t sector : node.dirty_sectors) {
    if (survives(seed, state)) {
      copy_sector(node.cached, node.durable, sector);
    }
  }
  node.cached = node.durable;
  node.dirty_sectors.clear();
  node.is_size_dirty = false;
}

void lose_unsynced(MemoryFolder& folder, uint64_t seed, uint64_t& state) {
  size_t kept = 0;
  while (kept < folder.since_sync.size() && survives(seed, state)) {
    ++kept;
  }
  if (kept > 0) {
    folder.durable = folder.since_sync[kept - 1];
  }
  folder.cached = folder.durable;
  folder.since_sync.clear();
  for (auto& [name, entry] : folder.cached) {
    if (entry.file) {
      lose_unsynced(*entry.file, seed, state);
    } else {
      lose_unsynced(*entry.folder, seed, state);
    }
  }
}

void collect(const MemoryFolder& folder, const std::string& prefix,
             std::map<std::string, std::vector<std::byte>>& files) {
  for (const auto& [name, entry] : folder.cached) {
    if (entry.file) {
      files[prefix + name] = entry.file->cached;
    } else {
      collect(*entry.folder, prefix + name + "/", files);
    }
  }
}

void collect_nodes(const MemoryFolder& folder, std::set<const MemoryNode*>& nodes) {
  for (const auto& [name, entry] : folder.cached) {
    if (entry.file) {
      nodes.insert(entry.file.get());
    } else {
      collect_nodes(*entry.folder, nodes);
    }
  }
}

}  // namespace

class MemoryFile : public File {
 public:
  MemoryFile(MemoryDisk& disk, std::shared_ptr<MemoryNode> node, std::string path)
      : disk_(disk), node_(std::move(node)), path_(std::move(path)), boot_(disk.boot_) {
    ++node_->handles;
  }
  ~MemoryFile() override { --node_->handles; }
  MemoryFile(const MemoryFile&) = delete;
  MemoryFile& operator=(const MemoryFile&) = delete;

  Result<> read(uint64_t offset, ByteSpan buffer) override {
    if (disk_.stopped_ || boot_ != disk_.boot_) {
      return fail(ErrorKind::kIo, "read " + path_, EIO);
    }
    if (offset > node_->cached.size() || buffer.size() > node_->cached.size() - offset) {
      return fail(ErrorKind::kIo, "read past the end of " + path_);
    }
    std::copy_n(node_->cached.begin() + static_cast<ptrdiff_t>(offset), buffer.size(),
                buffer.begin());
    return {};
  }

  Result<> write(uint64_t offset, ConstByteSpan buffer) override {
    const ByteRange range{offset, buffer.size()};
    return change("write", range, [&]() -> Result<> {
      if (!disk_.take_space(*node_, range)) {
        return fail_errno(ENOSPC, "write " + path_);
      }
      std::copy(buffer.begin(), buffer.end(), place(range));
      return {};
    });
  }

  Result<> read_many(std::span<const Transfer> transfers) override {
    for (const Transfer& transfer : transfers) {
      CKPT_TRY(read(transfer.offset, transfer.buffer));
    }
    return {};
  }

  Result<> write_many(std::span<const Transfer> transfers) override {
    for (const Transfer& transfer : transfers) {
      CKPT_TRY(write(transfer.offset, transfer.buffer));
    }
    return {};
  }

  Result<> sync() override {
    if (sync_failed_) {
      return Unexpected(*sync_failed_);
    }
    auto synced = change("sync", {}, [&]() -> Result<> {
      // The operation at which the machine stops is a sync that comes too late.
      if (!disk_.stopped_) {
        sync_node(*node_);
      }
      return {};
    });
    if (!synced) {
      sync_failed_ = synced.error();
      if (!disk_.stopped_) {
        node_->dirty_sectors.clear();  // "clean" now, and never written
      }
    }
    return synced;
  }

  // What the kernel tells of a failed write it tells once.
  Result<> let_go(ByteRange range) override {
    auto let_go = change("let go", range, []() -> Result<> { return {}; });
    if (!let_go) {
      sync_failed_ = let_go.error();
    }
    return let_go;
  }

  Result<> allocate(ByteRange range) override {
    return change("allocate", range, [&]() -> Result<> {
      return disk_.take_space(*node_, range) ? Result<>()
                                             : Result<>(fail_errno(ENOSPC, "allocate " + path_));
    });
  }

  Result<> zero(ByteRange range, bool punch) override {
    return change(punch ? "punch" : "zero", range, [&]() -> Result<> {
      if (!punch && !disk_.take_space(*node_, range)) {
        return fail_errno(ENOSPC, "zero " + path_);
      }
      std::fill_n(place(range), range.length, std::byte{0});
      if (punch) {
        give_up_pages(range);
      }
      return {};
    });
  }

  Result<> give_back(ByteRange range) override { return zero(range, true); }

  Result<> resize(uint64_t size_bytes) override {
    return change("resize", {0, size_bytes}, [&]() -> Result<> {
      const uint64_t pages = units_to(size_bytes, kPageBytes);
      node_->allocated_pages.erase(node_->allocated_pages.lower_bound(pages),
                                   node_->allocated_pages.end());
      node_->written_pages.erase(node_->written_pages.lower_bound(pages),
                                 node_->written_pages.end());
      node_->cached.resize(size_bytes);
      node_->is_size_dirty = true;
      return {};
    });
  }

  Result<uint64_t> size() override { return uint64_t{node_->cached.size()}; }

  Result<std::optional<ByteRange>> next_data(uint64_t offset) override {
    const uint64_t size_bytes = node_->cached.size();
    auto page = node_->written_pages.lower_bound(offset / kPageBytes);
    if (offset >= size_bytes || page == node_->written_pages.end() ||
        *page * kPageBytes >= size_bytes) {
      return std::optional<ByteRange>();
    }
    const uint64_t begin = std::max(offset, *page * kPageBytes);
    uint64_t end = *page;
    while (page != node_->written_pages.end() && *page == end) {
      ++page;
      ++end;
    }
    return std::optional(ByteRange{begin, std::min(end * kPageBytes, size_bytes) - begin});
  }

  Result<FileStamp> stamp() override { return FileStamp{}; }

 private:
  Result<> change(const std::string& act, ByteRange range, const std::function<Result<>()>& work) {
    if (boot_ != disk_.boot_) {
      return fail(ErrorKind::kIo, act + " " + path_ + " by a process that is gone", EIO);
    }
    std::optional<Error> error;
    const MemoryDisk::Fate fate = disk_.begin({act, path_, range}, error);
    Result<> done;
    if (fate != MemoryDisk::Fate::kFailed) {
      done = work();
    }
    return error ? Result<>(Unexpected(*error)) : done;
  }

  // Where the bytes of a range that is about to be written go.
  std::vector<std::byte>::iterator place(ByteRange range) {
    if (range.end() > node_->cached.size()) {
      node_->cached.resize(range.end());
      node_->is_size_dirty = true;
    }
    add_range(node_->dirty_sectors, range.offset / kSectorBytes,
              units_to(range.end(), kSectorBytes));
    add_range(node_->written_pages, range.offset / kPageBytes, units_to(range.end(), kPageBytes));
    return node_->cached.begin() + static_cast<ptrdiff_t>(range.offset);
  }

  // The whole pages of a range, and what there is of the file's last page.
  void give_up_pages(ByteRange range) {
    const uint64_t first = units_to(range.offset, kPageBytes);
    const uint64_t end = range.end() == node_->cached.size() ? units_to(range.end(), kPageBytes)
                                                             : range.end() / kPageBytes;
    remove_range(node_->allocated_pages, first, end);
    remove_range(node_->written_pages, first, end);
  }

  MemoryDisk& disk_;
  std::shared_ptr<MemoryNode> node_;
  std::string path_;
  uint64_t boot_;
  std::optional<Error> sync_failed_;
};

class MemoryDirectory : public Directory {
 public:
  MemoryDirectory(MemoryDisk& disk, std::shared_ptr<MemoryFolder> folder)
      : disk_(disk), folder_(std::move(folder)), boot_(disk.boot_) {}

  Result<std::unique_ptr<File>> open(const std::string& name, OpenMode mode) override {
    const std::string path = path_of(name);
    auto found = folder_->cached.find(name);
    if (mode == OpenMode::kCreate) {
      if (found != folder_->cached.end()) {
        return fail_errno(EEXIST, "open " + path);
      }
      CKPT_TRY(change("create", name, [&] {
        folder_->cached[name] = {disk_.new_node(), nullptr};
      }));
      found = folder_->cached.find(name);
    }
    if (disk_.stopped_ || boot_ != disk_.boot_) {
      return fail_errno(EIO, "open " + path);
    }
    if (found == folder_->cached.end() || !found->second.file) {
      return fail_errno(ENOENT, "open " + path);
    }
    return std::unique_ptr<File>(std::make_unique<MemoryFile>(disk_, found->second.file, path));
  }

  Result<std::unique_ptr<Directory>> subdirectory(const std::string& name, bool create) override {
    if (!folder_->cached.contains(name) && create) {
      CKPT_TRY(change("create", name, [&] {
        auto folder = std::make_shared<MemoryFolder>();
        folder->path = path_of(name);
        folder_->cached[name] = {nullptr, folder};
      }));
    }
    const auto found = folder_->cached.find(name);
    if (found == folder_->cached.end() || !found->second.folder) {
      return fail_errno(ENOENT, "open " + path_of(name));
    }
    return std::unique_ptr<Directory>(
        std::make_unique<MemoryDirectory>(disk_, found->second.folder));
  }

  Result<> remove(const std::string& name) override {
    if (!folder_->cached.contains(name)) {
      return fail_errno(ENOENT, "unlink " + path_of(name));
    }
    return change("remove", name, [&] { folder_->cached.erase(name); });
  }

  Result<> rename(const std::string& from, const std::string& to) override {
    if (!folder_->cached.contains(from)) {
      return fail_errno(ENOENT, "rename " + path_of(from));
    }
    return change("rename", from, [&] {
      folder_->cached[to] = folder_->cached[from];
      folder_->cached.erase(from);
    });
  }

  Result<std::vector<std::string>> list() override {
    std::vector<std::string> names;
    for (const auto& [name, entry] : folder_->cached) {
      names.push_back(name);
    }
    return names;
  }

  Result<> sync() override {
    std::optional<Error> error;
    if (boot_ != disk_.boot_) {
      return fail_errno(EIO, "fsync " + folder_->path);
    }
    const MemoryDisk::Fate fate = disk_.begin({"sync directory", folder_->path, {}}, error);
    if (fate == MemoryDisk::Fate::kDone) {
      folder_->durable = folder_->cached;
      folder_->since_sync.clear();
    }
    return error ? Result<>(Unexpected(*error)) : Result<>();
  }

  Result<uint64_t> free_bytes() override {
    const uint64_t used = disk_.used_bytes();
    if (!disk_.capacity_) {
      return uint64_t{1} << 40U;
    }
    return *disk_.capacity_ > used ? *disk_.capacity_ - used : 0;
  }

  [[nodiscard]] std::string path() const override { return folder_->path; }

 private:
  [[nodiscard]] std::string path_of(const std::string& name) const {
    return folder_->path.empty() ? name : folder_->path + "/" + name;
  }

  Result<> change(const std::string& act, const std::string& name,
                  const std::function<void()>& work) {
    if (boot_ != disk_.boot_) {
      return fail_errno(EIO, act + " " + path_of(name));
    }
    std::optional<Error> error;
    if (disk_.begin({act, path_of(name), {}}, error) != MemoryDisk::Fate::kFailed) {
      work();
      folder_->since_sync.push_back(folder_->cached);
    }
    return error ? Result<>(Unexpected(*error)) : Result<>();
  }

  MemoryDisk& disk_;
  std::shared_ptr<MemoryFolder> folder_;
  uint64_t boot_;
};

MemoryDisk::MemoryDisk() : root_(std::make_shared<MemoryFolder>()) {}

std::unique_ptr<Directory> MemoryDisk::root() {
  return std::make_unique<MemoryDirectory>(*this, root_);
}

void MemoryDisk::count_from_here() {
  operations_ = 0;
  fail_at_ = 0;
  stop_at_ = 0;
}

void MemoryDisk::fail_operation(uint64_t nth, int number) {
  count_from_here();
  fail_at_ = nth;
  fail_number_ = number;
}

void MemoryDisk::stop_at(uint64_t nth) {
  count_from_here();
  stop_at_ = nth;
}

MemoryDisk::Fate MemoryDisk::begin(const MemoryOperation& operation, std::optional<Error>& error) {
  const std::string context = operation.act + " " + operation.path;
  if (stopped_) {
    error = fail_errno(EIO, context).error();
    return Fate::kFailed;
  }
  ++operations_;
  if (operations_ == stop_at_) {
    stopped_ = true;
    error = fail_errno(EIO, context).error();
    return Fate::kLast;
  }
  if (operations_ == fail_at_) {
    error = fail_errno(fail_number_, context).error();
    return Fate::kFailed;
  }
  if (watcher_) {
    watcher_(operation);
  }
  return Fate::kDone;
}

std::shared_ptr<MemoryNode> MemoryDisk::new_node() {
  auto node = std::make_shared<MemoryNode>();
  nodes_.push_back(node);
  return node;
}

bool MemoryDisk::take_space(MemoryNode& node, ByteRange range) {
  const uint64_t first = range.offset / kPageBytes;
  const uint64_t end = units_to(range.end(), kPageBytes);
  const uint64_t missing = end - first - count_in_range(node.allocated_pages, first, end);
  if (capacity_ && used_bytes() + missing * kPageBytes > *capacity_) {
    return missing == 0;
  }
  add_range(node.allocated_pages, first, end);
  return true;
}

uint64_t MemoryDisk::used_bytes() const {
  std::set<const MemoryNode*> named;
  collect_nodes(*root_, named);
  uint64_t used = 0;
  for (const auto& weak : nodes_) {
    const auto node = weak.lock();
    if (node && (node->handles > 0 || named.contains(node.get()))) {
      used += node->allocated_pages.size() * kPageBytes;
    }
  }
  return used;
}

void MemoryDisk::lose_power(uint64_t seed) {
  uint64_t state = seed;
  lose_unsynced(*root_, seed, state);
  restart_process();
}

void MemoryDisk::restart_process() {
  ++boot_;
  stopped_ = false;
  count_from_here();
}

std::shared_ptr<MemoryNode> MemoryDisk::find(const std::string& path) const {
  const MemoryFolder* folder = root_.get();
  std::string rest = path;
  for (size_t slash = rest.find('/'); slash != std::string::npos; slash = rest.find('/')) {
    folder = folder->cached.at(rest.substr(0, slash)).folder.get();
    rest = rest.substr(slash + 1);
  }
  return folder->cached.at(rest).file;
}

std::vector<std::byte>& MemoryDisk::content(const std::string& path) { return find(path)->cached; }

void MemoryDisk::damage(const std::string& path,
                        const std::function<void(std::vector<std::byte>&)>& change) {
  MemoryNode& node = *find(path);
  change(node.cached);
  node.durable = node.cached;
  node.dirty_sectors.clear();
  node.is_size_dirty = false;
}

std::map<std::string, std::vector<std::byte>> MemoryDisk::snapshot() const {
  std::map<std::string, std::vector<std::byte>> files;
  collect(*root_, "", files);
  return files;
}

}  // namespace ckpt::test
