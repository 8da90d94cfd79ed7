// SPDX-License-Identifier: Apache-2.0
#include "common/volume_name.h"

#include "common/text.h"

namespace ckpt {

bool valid_volume_name(std::string_view name) {
  const bool is_word = !name.empty() && name.size() <= kVolumeNameBytesMax &&
                       name.find('/') == std::string_view::npos && name != "." && name != "..";
  return is_word && printable(name) == name && !Uuid::parse(name);
}

}  // namespace ckpt
