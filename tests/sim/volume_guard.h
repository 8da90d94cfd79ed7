// SPDX-License-Identifier: Apache-2.0
// The write-ahead guard's rules about a volume's own files, and about the store beside them.
#pragma once

#include "tests/sim/store_guard.h"

namespace ckpt::sim {

// A client's write to a region of the image begins only if the region's mark is durable. (A
// rollback's need not: it is on record itself.) A region is unmarked only when all that was written
// to it is durable. CONFIRM is sent only when the intent, and all else in the volume's record, is
// durable.
class VolumeGuard final : public StoreGuard {
 public:
  struct Shape {
    uint64_t size_bytes = 0;  // of the image
    uint64_t region_bytes = 0;
  };
  VolumeGuard(SimDisk& disk, const Shape& shape, Report report)
      : StoreGuard(disk, std::move(report)), shape_(shape) {}

  void on_write(const std::string& path, ByteRange range) override;
  void on_written(const std::string& path, ByteRange range, bool done) override;
  void on_answer(const std::string& label, uint64_t number) override;
  // Marks may have failed: then "everything changed" in the record stands for them.
  void excuse_marks() { marks_excused_ = true; }
  // Whether clients are served, and no rollback is under way.
  void set_serving(bool serving) { serving_ = serving; }
  void restart() override;

 private:
  // The image: clients go on writing; the record says "suspect", and no checkpoint is confirmed.
  // The marks: every later sync fails, too, and "everything changed" is recorded instead.
  [[nodiscard]] bool goes_on_after_failed_sync(const std::string& path) const override {
    return path == "image" || path == "state/regions";
  }
  [[nodiscard]] bool is_marked(uint64_t region) const;
  void check_unmarked();
  [[nodiscard]] bool has_durable_intent(uint64_t number) const;

  const Shape shape_;
  bool marks_excused_ = false;
  bool serving_ = false;
};

}  // namespace ckpt::sim
