// SPDX-License-Identifier: Apache-2.0
// Where lines for people go.
#pragma once

#include <functional>
#include <string>

namespace ckpt {

// Without a newline; from any thread.
using LogLine = std::function<void(const std::string&)>;

}  // namespace ckpt
