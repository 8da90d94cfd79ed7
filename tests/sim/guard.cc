// SPDX-License-Identifier: Apache-2.0
#include "tests/sim/guard.h"

#include <algorithm>

#include "tests/sim/scheduler.h"

namespace ckpt::sim {
namespace {

std::string join(const std::string& path, const std::string& name) {
  return path.empty() ? name : path + "/" + name;
}

ByteRange range_of(const Transfer& transfer) { return {transfer.offset, transfer.buffer.size()}; }

// What a killed process still tries while it is unwound is nothing that happened.
IoObserver& unless_dying(IoObserver& observer) {
  static IoObserver nobody;
  const Scheduler* const scheduler = Scheduler::current();
  return scheduler != nullptr && scheduler->dying() ? nobody : observer;
}

class ObservedFile final : public File {
 public:
  ObservedFile(std::unique_ptr<File> file, IoObserver& observer, std::string path)
      : file_(std::move(file)), observer_(observer), path_(std::move(path)) {}

  Result<> read(uint64_t offset, ByteSpan buffer) override { return file_->read(offset, buffer); }
  Result<> read_many(std::span<const Transfer> transfers) override {
    return file_->read_many(transfers);
  }
  Result<> allocate(ByteRange range) override { return file_->allocate(range); }
  Result<uint64_t> size() override { return file_->size(); }
  Result<std::optional<ByteRange>> next_data(uint64_t offset) override {
    return file_->next_data(offset);
  }
  Result<FileStamp> stamp() override { return file_->stamp(); }

  Result<> write(uint64_t offset, ConstByteSpan buffer) override {
    const ByteRange range{offset, buffer.size()};
    unless_dying(observer_).on_write(path_, range);
    const Result<> result = file_->write(offset, buffer);
    unless_dying(observer_).on_written(path_, range, result.has_value());
    return result;
  }
  Result<> write_many(std::span<const Transfer> transfers) override {
    for (const Transfer& transfer : transfers) {
      unless_dying(observer_).on_write(path_, range_of(transfer));
    }
    const Result<> result = file_->write_many(transfers);
    for (const Transfer& transfer : transfers) {
      unless_dying(observer_).on_written(path_, range_of(transfer), result.has_value());
    }
    return result;
  }
  Result<> zero(ByteRange range, bool punch) override {
    unless_dying(observer_).on_write(path_, range);
    const Result<> result = file_->zero(range, punch);
    unless_dying(observer_).on_written(path_, range, result.has_value());
    return result;
  }
  Result<> give_back(ByteRange range) override {
    unless_dying(observer_).on_give_back(path_, range);
    const Result<> result = file_->give_back(range);
    unless_dying(observer_).on_written(path_, range, result.has_value());
    return result;
  }
  Result<> resize(uint64_t size_bytes) override {
    unless_dying(observer_).on_resize(path_, size_bytes);
    return file_->resize(size_bytes);
  }
  Result<> sync() override {
    unless_dying(observer_).on_sync(path_);
    const Result<> result = file_->sync();
    unless_dying(observer_).on_synced(path_, result.has_value());
    return result;
  }

 private:
  std::unique_ptr<File> file_;
  IoObserver& observer_;  // outlives every file
  std::string path_;
};

class ObservedDirectory final : public Directory {
 public:
  ObservedDirectory(std::unique_ptr<Directory> directory, IoObserver& observer, std::string path)
      : directory_(std::move(directory)), observer_(observer), path_(std::move(path)) {}

  Result<std::unique_ptr<File>> open(const std::string& name, OpenMode mode) override {
    if (mode == OpenMode::kCreate) {
      unless_dying(observer_).on_create(join(path_, name));
    }
    CKPT_ASSIGN(std::unique_ptr<File> file, directory_->open(name, mode));
    return std::unique_ptr<File>(
        std::make_unique<ObservedFile>(std::move(file), observer_, join(path_, name)));
  }
  Result<std::unique_ptr<Directory>> subdirectory(const std::string& name, bool create) override {
    CKPT_ASSIGN(std::unique_ptr<Directory> directory, directory_->subdirectory(name, create));
    return observe(std::move(directory), observer_, join(path_, name));
  }
  Result<> remove(const std::string& name) override {
    unless_dying(observer_).on_remove(join(path_, name));
    return directory_->remove(name);
  }
  Result<> rename(const std::string& from, const std::string& to) override {
    unless_dying(observer_).on_rename(join(path_, from), join(path_, to));
    return directory_->rename(from, to);
  }
  Result<std::vector<std::string>> list() override { return directory_->list(); }
  Result<> sync() override {
    const Result<> result = directory_->sync();
    unless_dying(observer_).on_directory_synced(path_, result.has_value());
    return result;
  }
  Result<uint64_t> free_bytes() override { return directory_->free_bytes(); }
  [[nodiscard]] std::string path() const override { return directory_->path(); }

 private:
  std::unique_ptr<Directory> directory_;
  IoObserver& observer_;  // outlives every directory
  std::string path_;
};

std::string describe(ByteRange range) {
  return "[" + std::to_string(range.offset) + ", " + std::to_string(range.end()) + ")";
}

}  // namespace

std::unique_ptr<Directory> observe(std::unique_ptr<Directory> directory, IoObserver& observer,
                                   const std::string& path) {
  return std::make_unique<ObservedDirectory>(std::move(directory), observer, path);
}

void IoGuard::on_write(const std::string& path, ByteRange range) {
  check_not_failed(path, "written");
  std::vector<ByteRange>& writes = in_flight_[path];
  for (const ByteRange& other : writes) {
    if (range.offset < other.end() && other.offset < range.end()) {
      report("guard: a write to " + path + " " + describe(range) + " overlaps one in flight, " +
             describe(other));
    }
  }
  writes.push_back(range);
}

void IoGuard::on_written(const std::string& path, ByteRange range, bool /*done*/) {
  std::vector<ByteRange>& writes = in_flight_[path];
  const auto found = std::find(writes.begin(), writes.end(), range);
  if (found != writes.end()) {
    writes.erase(found);
  }
}

void IoGuard::on_resize(const std::string& path, uint64_t /*size_bytes*/) {
  check_not_failed(path, "resized");
}

void IoGuard::on_sync(const std::string& path) { check_not_failed(path, "synced"); }

void IoGuard::on_synced(const std::string& path, bool done) {
  if (!done && !goes_on_after_failed_sync(path)) {
    failed_.insert(path);
  }
}

void IoGuard::on_create(const std::string& path) { failed_.erase(path); }

void IoGuard::on_rename(const std::string& from, const std::string& to) {
  failed_.erase(to);
  if (failed_.contains(from)) {
    report("guard: " + from + " is renamed after its sync failed");
  }
}

void IoGuard::restart() {
  in_flight_.clear();
  failed_.clear();
}

void IoGuard::check_not_failed(const std::string& path, const char* act) {
  if (failed_.contains(path)) {
    report("guard: " + path + " is " + act + " after its sync failed");
  }
}

}  // namespace ckpt::sim
