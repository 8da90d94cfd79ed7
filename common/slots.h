// SPDX-License-Identifier: Apache-2.0
// A small record that is replaced as a whole and never lost: both sides' `volume` file.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "common/file.h"

namespace ckpt {

inline constexpr size_t kSlotPayloadBytesMax = 65000;

// Two generations of the record, two copies of each, each with its checksums and synced by itself;
// only the older generation is overwritten. So a crash damages at most one copy, of the generation
// being written, and one flipped bit anywhere is survived. If both copies of one generation are
// damaged, no crash did that: open() refuses rather than fall back.
//
// Threads:    one at a time.
// Failure:    after a failed write() every call returns the first error.
// Durability: when write() returns, the new generation survives a loss of power.
// Format:     docs/volume-format.md, "Slots"
class Slots {
 public:
  // Writes the first generation under a temporary name, syncs, renames, syncs the directory.
  static Result<Slots> create(Directory& directory, const std::string& name, ConstByteSpan payload);
  // Syncs the file before trusting it. kNotFound; kCorrupt, naming the file.
  static Result<Slots> open(Directory& directory, const std::string& name);

  Result<> write(ConstByteSpan payload);
  [[nodiscard]] ConstByteSpan payload() const { return payload_; }
  [[nodiscard]] uint64_t generation() const { return generation_; }
  Result<FileStamp> stamp() { return file_->stamp(); }

 private:
  Slots(std::unique_ptr<File> file, std::string name)
      : file_(std::move(file)), name_(std::move(name)) {}
  Result<> load();
  Result<> write_generation(uint64_t generation, ConstByteSpan payload);

  std::unique_ptr<File> file_;
  std::string name_;
  uint64_t generation_ = 0;
  std::vector<std::byte> payload_;
  std::optional<Error> failed_;
};

}  // namespace ckpt
