// SPDX-License-Identifier: Apache-2.0
// Bytes through a descriptor: all of them, also where the kernel takes or gives fewer at once.
#pragma once

#include <string>

#include "common/bytes.h"
#include "common/result.h"

namespace ckpt {

// Where a descriptor stands. `what`: the object, for the message.
Result<> write_all(int fd, ConstByteSpan bytes, const std::string& what);

// At a place of a file.
Result<> write_all_at(int fd, uint64_t offset, ConstByteSpan bytes, const std::string& what);
// kCorrupt: the file ends before.
Result<> read_all_at(int fd, uint64_t offset, ByteSpan buffer, const std::string& what);

}  // namespace ckpt
