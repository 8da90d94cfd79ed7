// SPDX-License-Identifier: Apache-2.0
#include "tests/sim/volume_guard.h"

#include "plugin/volume_record.h"

namespace ckpt::sim {
namespace {

constexpr char kRegions[] = "state/regions";
constexpr char kRecord[] = "state/volume";
constexpr uint64_t kRegionsHeaderBytes = 4096;  // docs/volume-format.md, "Regions"

}  // namespace

bool VolumeGuard::is_marked(uint64_t region) const {
  const std::byte bits = disk_.durable_byte(kRegions, kRegionsHeaderBytes + region / 8);
  return (bits & static_cast<std::byte>(1U << (region % 8))) != std::byte{0};
}

void VolumeGuard::on_write(const std::string& path, ByteRange range) {
  StoreGuard::on_write(path, range);
  if (path != "image" || !serving_ || marks_excused_ || range.length == 0) {
    return;
  }
  for (uint64_t region = range.offset / shape_.region_bytes;
       region * shape_.region_bytes < range.end(); ++region) {
    if (!is_marked(region)) {
      report("guard: the image is written at " + std::to_string(range.offset) + ", and region " +
             std::to_string(region) + " is not marked durably");
    }
  }
}

void VolumeGuard::on_written(const std::string& path, ByteRange range, bool done) {
  IoGuard::on_written(path, range, done);
  if (path == kRegions && done && !marks_excused_) {
    check_unmarked();
  }
}

void VolumeGuard::check_unmarked() {
  const std::vector<std::byte> bits = disk_.cached(kRegions).value();
  for (uint64_t region = 0; region * shape_.region_bytes < shape_.size_bytes; ++region) {
    const auto bit = static_cast<std::byte>(1U << (region % 8));
    const bool is_set = (bits[kRegionsHeaderBytes + region / 8] & bit) != std::byte{0};
    if (!is_set && is_marked(region) &&
        !disk_.is_clean("image", {region * shape_.region_bytes, shape_.region_bytes})) {
      report("guard: region " + std::to_string(region) +
             " is unmarked, and not all that was written to it is durable");
    }
  }
}

void VolumeGuard::restart() {
  StoreGuard::restart();
  serving_ = false;
}

// Another update of the record may be under way.
bool VolumeGuard::has_durable_intent(uint64_t number) const {
  const auto bytes = disk_.durable(kRecord);
  const auto record = decode_volume_record(bytes ? newest_slot(*bytes) : ConstByteSpan());
  return record && record->intent && record->intent->id.number.value == number;
}

void VolumeGuard::on_answer(const std::string& label, uint64_t number) {
  if (label == "send CONFIRM" && !has_durable_intent(number)) {
    report("guard: CONFIRM(" + std::to_string(number) + ") is sent before its intent is durable");
  }
}

}  // namespace ckpt::sim
