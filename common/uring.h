// SPDX-License-Identifier: Apache-2.0
// Reads and writes of a file by io_uring: one ring a thread, all of a call's transfers in flight at
// once.
#pragma once

#include "common/file.h"

namespace ckpt {

// Rings must be made in the process that uses them: before this is called every transfer is plain.
void uring_enable();

// Whether this kernel and its limits let this thread have a ring. When not, says why (errno).
Result<> uring_available();

enum class TransferKind { kRead, kWrite };

// Does all transfers on the calling thread's ring and waits for them. Short ones are finished with
// pread and pwrite. Returns the first error, when none is in flight any more; number is the errno.
Result<> uring_transfer(int fd, TransferKind kind, std::span<const Transfer> transfers);

// The same without a ring, one after the other.
Result<> plain_transfer(int fd, TransferKind kind, const Transfer& transfer);

}  // namespace ckpt
