// SPDX-License-Identifier: Apache-2.0
#include "common/device_stamp.h"

#include <sys/sysmacros.h>

#include <array>
#include <filesystem>
#include <fstream>

namespace ckpt {
namespace {

namespace fs = std::filesystem;

// Fields of `stat` (kernel: Documentation/block/stat.rst), from 0.
constexpr size_t kWrittenSectors = 6;
constexpr size_t kDiscardedSectors = 13;
constexpr size_t kFields = kDiscardedSectors + 1;

// 0: not to be read, or none.
uint64_t number_in(const fs::path& path) {
  std::ifstream file(path);
  uint64_t number = 0;
  file >> number;
  return file ? number : 0;
}

// Sectors written and discarded; all 0: not counted.
std::pair<uint64_t, uint64_t> sectors_of(const fs::path& folder) {
  std::ifstream file(folder / "stat");
  std::array<uint64_t, kFields> fields{};
  for (uint64_t& field : fields) {
    file >> field;
  }
  return file ? std::pair(fields[kWrittenSectors], fields[kDiscardedSectors])
              : std::pair<uint64_t, uint64_t>();
}

}  // namespace

FileStamp stamp_of_device(dev_t device, uint64_t size_bytes, WallTime now, const std::string& sys) {
  std::error_code missing;
  const fs::path folder = fs::canonical(
      sys + "/dev/block/" + std::to_string(major(device)) + ":" + std::to_string(minor(device)),
      missing);
  // A partition's are its disk's.
  const bool is_partition = fs::exists(folder / "partition", missing);
  const fs::path disk = is_partition ? folder.parent_path() : folder;
  FileStamp stamp;
  stamp.device = device;
  stamp.inode = number_in(disk / "diskseq");
  stamp.size_bytes = size_bytes;
  const auto [written, discarded] = sectors_of(folder);
  const bool counts = written != 0 && stamp.inode != 0 && number_in(disk / "queue/iostats") == 1;
  stamp.modified = std::chrono::nanoseconds(discarded);
  stamp.changed = counts ? std::chrono::nanoseconds(written) : now;
  return stamp;
}

}  // namespace ckpt
