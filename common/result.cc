// SPDX-License-Identifier: Apache-2.0
#include "common/result.h"

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace ckpt {

std::string errno_text(int number) {
  // Not strerror(3): that one takes the locale's lock, and messages are in one language.
  const char* const text = strerrordesc_np(number);
  return text != nullptr ? text : "error " + std::to_string(number);
}

std::string Error::message() const {
  if (number == 0) {
    return context;
  }
  return context + ": " + errno_text(number);
}

int Error::to_errno() const {
  if (number != 0) {
    return number;
  }
  switch (kind) {
    case ErrorKind::kNoSpace: return ENOSPC;
    case ErrorKind::kInvalid: return EINVAL;
    case ErrorKind::kNotFound: return ENOENT;
    case ErrorKind::kBusy: return EBUSY;
    case ErrorKind::kTimeout: return ETIMEDOUT;
    case ErrorKind::kFenced: return ESHUTDOWN;
    case ErrorKind::kDenied: return EACCES;
    default: return EIO;
  }
}

Unexpected fail(ErrorKind kind, std::string context, int number) {
  return Unexpected(Error{kind, number, std::move(context)});
}

Unexpected fail_errno(int number, std::string context) {
  ErrorKind kind = ErrorKind::kIo;
  if (number == ENOSPC || number == EDQUOT) {
    kind = ErrorKind::kNoSpace;
  } else if (number == ENOENT) {
    kind = ErrorKind::kNotFound;
  }
  return fail(kind, std::move(context), number);
}

Unexpected within(std::string context, Error error) {
  error.context = std::move(context) + ": " + error.context;
  return Unexpected(std::move(error));
}

void check_failed(const char* expression, const char* file, int line) {
  std::fprintf(stderr, "ckpt: %s:%d: check failed: %s\n", file, line, expression);
  std::abort();
}

}  // namespace ckpt
