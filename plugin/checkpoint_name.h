// SPDX-License-Identifier: Apache-2.0
// What a checkpoint may be called, and which one is meant.
#pragma once

#include <string_view>
#include <vector>

#include "common/store_link.h"

namespace ckpt {

inline constexpr size_t kNameBytesMax = 255;
inline constexpr size_t kMessageBytesMax = 4096;

// Whether a checkpoint may be called so: UTF-8, at most kNameBytesMax bytes, no control characters,
// not like a number, not "last". Empty is no name, and valid. kInvalid says why not.
Result<> check_name(std::string_view name);
// UTF-8, at most kMessageBytesMax bytes.
Result<> check_message(std::string_view message);

// One of those kept, oldest first, by number, name or "last". kNotFound says what to do.
Result<CheckpointInfo> find_checkpoint(const std::vector<CheckpointInfo>& kept,
                                       std::string_view id);

}  // namespace ckpt
