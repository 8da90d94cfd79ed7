// SPDX-License-Identifier: Apache-2.0
// Which operations of a simulated disk fail.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "common/block.h"
#include "tests/sim/random.h"

namespace ckpt::sim {

enum class DiskOperation {
  kRead, kWrite, kSync, kZero, kAllocate, kResize,                        // of a file
  kOpen, kCreate, kRemove, kRename, kDirectorySync,                       // of a directory
  kQuery,                                                                 // sizes, stamps, lists
  kSharedAllocate,                                                        // of shared memory
};

struct DiskAccess {
  DiskOperation operation = DiskOperation::kRead;
  std::string_view path;  // "state/regions"
  ByteRange range;
};

class FaultPolicy {
 public:
  virtual ~FaultPolicy() = default;
  // The errno that it fails with; 0: none.
  virtual int fault(const DiskAccess& access) = 0;
};

// The n-th operation of a kind on paths that end in something fails; later ones succeed, or fail too.
class NthFault final : public FaultPolicy {
 public:
  struct Options {
    DiskOperation operation = DiskOperation::kWrite;
    std::string path_end = {};  // empty: any
    uint64_t n = 1;        // counted from 1
    int error = 5;         // EIO
    bool for_good = false;
  };
  explicit NthFault(Options options) : options_(std::move(options)) {}
  int fault(const DiskAccess& access) override;
  [[nodiscard]] bool hit() const { return count_ >= options_.n; }

 private:
  Options options_;
  uint64_t count_ = 0;
};

// Operations fail by chance.
class RandomFaults final : public FaultPolicy {
 public:
  struct Rate {
    DiskOperation operation = DiskOperation::kWrite;
    std::string path_begin = {};  // empty: any
    uint64_t one_in = 0;          // 0: never
    int error = 5;                // EIO
  };
  explicit RandomFaults(SeededRandom random) : random_(random) {}
  // The first rate that fits an operation counts.
  void add(Rate rate) { rates_.push_back(std::move(rate)); }
  // No rates, and nothing counted.
  void clear();
  int fault(const DiskAccess& access) override;
  // How many failed, of an operation.
  [[nodiscard]] uint64_t count(DiskOperation operation) const;
  // How many syncs of a file failed.
  [[nodiscard]] uint64_t failed_syncs(std::string_view path) const;

 private:
  struct Hit {
    DiskOperation operation;
    std::string path;
  };
  SeededRandom random_;
  std::vector<Rate> rates_;
  std::vector<Hit> hits_;
};

}  // namespace ckpt::sim
