// SPDX-License-Identifier: Apache-2.0
// The write-ahead guard: a decorator around files and directories that tells an observer of every change
// before it is made and every sync after it is done. The checks that need the product's formats are the
// observer's; those that hold for every file are here.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "common/file.h"

namespace ckpt::sim {

// Paths are relative to the directory that is observed: "store/journal/7". No call of an observer is a
// yield point: what it checks is true of the instant at which the act begins.
class IoObserver {
 public:
  virtual ~IoObserver() = default;
  // A write, a zeroing or a punch is about to begin.
  virtual void on_write(const std::string& /*path*/, ByteRange /*range*/) {}
  // Space is about to be given back, of a range that reads as zeroes.
  virtual void on_give_back(const std::string& path, ByteRange range) { on_write(path, range); }
  // It has ended; not called when the process is killed meanwhile.
  virtual void on_written(const std::string& /*path*/, ByteRange /*range*/, bool /*done*/) {}
  virtual void on_resize(const std::string& /*path*/, uint64_t /*size_bytes*/) {}
  virtual void on_sync(const std::string& /*path*/) {}
  virtual void on_synced(const std::string& /*path*/, bool /*done*/) {}
  virtual void on_create(const std::string& /*path*/) {}
  virtual void on_remove(const std::string& /*path*/) {}
  virtual void on_rename(const std::string& /*from*/, const std::string& /*to*/) {}
  virtual void on_directory_synced(const std::string& /*path*/, bool /*done*/) {}
  // The harness says so just before somebody outside is told something: "confirm 7", "flush".
  virtual void on_answer(const std::string& /*label*/, uint64_t /*number*/) {}
};

// A directory, its files and its subdirectories, observed.
std::unique_ptr<Directory> observe(std::unique_ptr<Directory> directory, IoObserver& observer,
                                   const std::string& path = "");

// The rules for every file: no two writes in flight to one file overlap; nothing is written to a file and
// it is not synced again after its sync failed.
class IoGuard : public IoObserver {
 public:
  using Report = std::function<void(const std::string& what)>;
  explicit IoGuard(Report report) : report_(std::move(report)) {}

  void on_write(const std::string& path, ByteRange range) override;
  void on_written(const std::string& path, ByteRange range, bool done) override;
  void on_resize(const std::string& path, uint64_t size_bytes) override;
  void on_sync(const std::string& path) override;
  void on_synced(const std::string& path, bool done) override;
  void on_create(const std::string& path) override;
  void on_rename(const std::string& from, const std::string& to) override;
  // All processes are dead: nothing is in flight, and the next may try again what failed for this one.
  virtual void restart();

 protected:
  void report(const std::string& what) { report_(what); }
  // A file that goes on being used after a failed sync.
  [[nodiscard]] virtual bool goes_on_after_failed_sync(const std::string& /*path*/) const {
    return false;
  }

 private:
  void check_not_failed(const std::string& path, const char* act);

  Report report_;
  std::unordered_map<std::string, std::vector<ByteRange>> in_flight_;
  std::unordered_set<std::string> failed_;
};

}  // namespace ckpt::sim
