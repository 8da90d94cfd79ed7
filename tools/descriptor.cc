// SPDX-License-Identifier: Apache-2.0
#include "tools/descriptor.h"

#include <unistd.h>

#include <cerrno>

namespace ckpt {
namespace {

// piece: one call of the kernel's on what is left; what it returns. Nothing moved where something
// should have is an end, and no reason to go on for ever.
template <typename Span, typename Piece>
Result<> move_all(Span bytes, const std::string& what, const Piece& piece) {
  while (!bytes.empty()) {
    const ssize_t count = piece(bytes);
    if (count < 0 && errno != EINTR) {
      return fail_errno(errno, what);
    }
    if (count == 0) {
      return fail(ErrorKind::kCorrupt, what + ": it ends before its end");
    }
    bytes = bytes.subspan(count > 0 ? static_cast<size_t>(count) : 0);
  }
  return {};
}

}  // namespace

Result<> write_all(int fd, ConstByteSpan bytes, const std::string& what) {
  return move_all(bytes, what,
                  [fd](ConstByteSpan left) { return ::write(fd, left.data(), left.size()); });
}

Result<> write_all_at(int fd, uint64_t offset, ConstByteSpan bytes, const std::string& what) {
  const uint64_t end = offset + bytes.size();
  return move_all(bytes, what, [fd, end](ConstByteSpan left) {
    return ::pwrite(fd, left.data(), left.size(), static_cast<off_t>(end - left.size()));
  });
}

Result<> read_all_at(int fd, uint64_t offset, ByteSpan buffer, const std::string& what) {
  const uint64_t end = offset + buffer.size();
  return move_all(buffer, what, [fd, end](ByteSpan left) {
    return ::pread(fd, left.data(), left.size(), static_cast<off_t>(end - left.size()));
  });
}

}  // namespace ckpt
