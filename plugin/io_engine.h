// SPDX-License-Identifier: Apache-2.0
// Which I/O engine serves an image, and why.
#pragma once

#include <string>

#include "common/posix_file.h"

namespace ckpt {

enum class IoMode { kAuto, kUring, kSync };

struct IoChoice {
  RingUse ring;
  std::string text;  // for people: "sync writes, io_uring reads (…)"
};

// For the files in a directory (the image's). With kAuto a write goes through io_uring only where a
// buffered write completes without a helper thread: tried on a nameless temporary file.
// kInvalid: io=uring was asked for, and this kernel or its limits do not have it.
Result<IoChoice> choose_io(IoMode mode, const std::string& directory);

}  // namespace ckpt
