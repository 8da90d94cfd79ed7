// SPDX-License-Identifier: Apache-2.0
#include "common/image_place.h"

#include <unistd.h>

#include <array>
#include <filesystem>

#include "common/bytes.h"
#include "common/checksum.h"

namespace ckpt {
namespace {

std::string host_name() {
  std::array<char, kHostBytesMax + 1> name{};
  return ::gethostname(name.data(), name.size() - 1) == 0 ? name.data() : "";
}

}  // namespace

PrimaryPlace place_of_image(const FileStamp& stamp, const std::string& path,
                            const std::string& boot_id) {
  Encoder encoder;
  encoder.put_string(boot_id);
  encoder.put(stamp.device);
  encoder.put(stamp.inode);
  encoder.put(static_cast<uint64_t>(stamp.birth.count()));
  std::error_code unknown;
  const std::string real = std::filesystem::canonical(path, unknown);
  return make_place(digest_of(encoder.bytes()), host_name(), unknown ? path : real);
}

}  // namespace ckpt
