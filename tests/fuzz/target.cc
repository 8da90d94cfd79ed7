// SPDX-License-Identifier: Apache-2.0
#include "tests/fuzz/target.h"

#include "common/checksum.h"

namespace ckpt::fuzz {

std::vector<Target> all_targets() {
  std::vector<Target> all;
  for (const auto& group :
       {wire_targets(), file_targets(), control_targets(), text_targets(), saved_targets()}) {
    all.insert(all.end(), group.begin(), group.end());
  }
  return all;
}

const Target* find_target(std::string_view name) {
  static const std::vector<Target> all = all_targets();
  const auto found = std::ranges::find(all, name, &Target::name);
  return found == all.end() ? nullptr : &*found;
}

std::vector<std::byte> sealed(ConstByteSpan header) {
  if (header.size() < sizeof(uint32_t)) {
    return {header.begin(), header.end()};
  }
  Encoder encoder;
  encoder.put_bytes(header.first(header.size() - sizeof(uint32_t)));
  encoder.put(crc32c(encoder.bytes()));
  return encoder.take();
}

}  // namespace ckpt::fuzz
