// SPDX-License-Identifier: Apache-2.0
#include "tests/sim/sim_memory.h"

#include <algorithm>
#include <cerrno>

#include "tests/sim/page.h"

namespace ckpt::sim {

class SimSharedMemory final : public SharedMemory {
 public:
  SimSharedMemory(SimMemory& memory, std::shared_ptr<SimMemory::Region> region)
      : memory_(memory), region_(std::move(region)), process_(memory.scheduler_.process()) {}

  [[nodiscard]] ByteSpan bytes() override { return region_->bytes; }
  Result<> allocate(ByteRange range) override {
    CKPT_TRY(memory_.enter("allocate memory"));
    const DiskAccess access{DiskOperation::kSharedAllocate, region_->name, range};
    if (memory_.faults_ != nullptr && memory_.faults_->fault(access) != 0) {
      return fail_errno(ENOSPC, "fallocate " + region_->name);
    }
    back(range, SimMemory::Backing::kShared);
    return {};
  }
  Result<> allocate_private(ByteRange range) override {
    CKPT_TRY(memory_.enter("allocate private memory"));
    back(range, SimMemory::Backing::kPrivate);
    return {};
  }
  Result<std::optional<ByteRange>> next_allocated(uint64_t offset) override;

 private:
  void back(ByteRange range, SimMemory::Backing backing);

  SimMemory& memory_;
  std::shared_ptr<SimMemory::Region> region_;  // the store's
  ProcessId process_;
};

void SimSharedMemory::back(ByteRange range, SimMemory::Backing backing) {
  const BlockRange pages = blocks_of(range);
  for (uint64_t page = pages.first; page < pages.end; ++page) {
    if (region_->pages.at(page) == SimMemory::Backing::kNone) {
      region_->pages[page] = backing;
      region_->owners[page] = process_;
    }
  }
}

Result<std::optional<ByteRange>> SimSharedMemory::next_allocated(uint64_t offset) {
  CKPT_TRY(memory_.enter("next allocated"));
  const auto allocated = [](SimMemory::Backing backing) {
    return backing != SimMemory::Backing::kNone;
  };
  const std::vector<SimMemory::Backing>& pages = region_->pages;
  const auto from =
      pages.begin() + static_cast<ptrdiff_t>(std::min(offset / kPageBytes, pages.size()));
  const auto first = std::find_if(from, pages.end(), allocated);
  const auto last = std::find_if_not(first, pages.end(), allocated);
  if (first == pages.end() || offset >= region_->bytes.size()) {
    return std::optional<ByteRange>();
  }
  const uint64_t begin =
      std::max(offset, static_cast<uint64_t>(first - pages.begin()) * kPageBytes);
  const uint64_t end =
      std::min(region_->bytes.size(), static_cast<size_t>(last - pages.begin()) * kPageBytes);
  return std::optional(ByteRange{begin, end - begin});
}

SimMemory::SimMemory(Scheduler& scheduler) : scheduler_(scheduler) {
  scheduler_.add_listener(this);
}

SimMemory::~SimMemory() { scheduler_.remove_listener(this); }

Result<> SimMemory::enter(const char* label) {
  scheduler_.yield(YieldKind::kMemory, label);
  if (scheduler_.dying()) {
    return fail(ErrorKind::kIo, "the process was killed");
  }
  return {};
}

Result<std::unique_ptr<SharedMemory>> SimMemory::create(const std::string& name, uint64_t bytes) {
  CKPT_TRY(enter("create memory"));
  if (regions_.contains(name)) {
    return fail_errno(EEXIST, "create " + name);
  }
  auto region = std::make_shared<Region>();
  region->name = name;
  region->bytes.resize(bytes);
  region->pages.resize(block_count(bytes));
  region->owners.resize(block_count(bytes));
  regions_[name] = region;
  return std::unique_ptr<SharedMemory>(std::make_unique<SimSharedMemory>(*this, region));
}

Result<std::unique_ptr<SharedMemory>> SimMemory::open(const std::string& name, uint64_t bytes) {
  CKPT_TRY(enter("open memory"));
  const auto found = regions_.find(name);
  if (found == regions_.end()) {
    return fail_errno(ENOENT, "open " + name);
  }
  if (found->second->bytes.size() != bytes) {
    return fail(ErrorKind::kCorrupt, name + " has another size");
  }
  return std::unique_ptr<SharedMemory>(std::make_unique<SimSharedMemory>(*this, found->second));
}

Result<> SimMemory::remove(const std::string& name) {
  CKPT_TRY(enter("remove memory"));
  if (regions_.erase(name) == 0) {
    return fail_errno(ENOENT, "remove " + name);
  }
  return {};
}

const std::byte* SimMemory::peek(const std::string& name) const {
  const auto found = regions_.find(name);
  return found == regions_.end() ? nullptr : found->second->bytes.data();
}

std::vector<std::string> SimMemory::names() const {
  std::vector<std::string> names;
  for (const auto& [name, region] : regions_) {
    names.push_back(name);
  }
  return names;
}

void SimMemory::on_kill(ProcessId /*process*/) {
  for (const auto& [name, region] : regions_) {
    region->frozen = region->bytes;
  }
}

void SimMemory::on_killed(ProcessId process) {
  for (const auto& [name, region] : regions_) {
    std::copy(region->frozen.begin(), region->frozen.end(), region->bytes.begin());
    drop_private(*region, process);
  }
}

void SimMemory::drop_private(Region& region, ProcessId process) {
  for (size_t page = 0; page < region.pages.size(); ++page) {
    if (region.pages[page] == Backing::kPrivate && region.owners[page] == process) {
      region.pages[page] = Backing::kNone;
      const size_t begin = page * kPageBytes;
      const size_t end = std::min(begin + kPageBytes, region.bytes.size());
      std::fill(region.bytes.begin() + static_cast<ptrdiff_t>(begin),
                region.bytes.begin() + static_cast<ptrdiff_t>(end), std::byte{0});
    }
  }
}

}  // namespace ckpt::sim
