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

// What the image is, as far as it matters here.
struct IoTarget {
  std::string directory;  // where the image is; empty: it is a block device
  bool direct = false;    // past the page cache
};

// With kAuto writes go through io_uring only where they complete without a helper thread: always
// with direct I/O; a buffered one is tried on a nameless temporary file, and not taken for granted
// on a block device. A single buffered write does not: pwrite(2) is faster (docs/performance.md).
// kInvalid: io=uring was asked for, and this kernel or its limits do not have it.
Result<IoChoice> choose_io(IoMode mode, const IoTarget& target);

}  // namespace ckpt
