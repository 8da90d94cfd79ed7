// SPDX-License-Identifier: Apache-2.0
// Errors as values: Result<T> with the names of std::expected, so that a later switch is an alias.
#pragma once

#include <optional>
#include <string>
#include <utility>
#include <variant>

namespace ckpt {

// What a caller branches on. The text of an error is for people only.
enum class ErrorKind {
  kIo,           // the system refused a read, write, sync or the like; Error::number says why
  kNoSpace,      // recoverable: there may be space later
  kInvalid,      // wrong use: a parameter, a command, a request
  kNotFound,     // no such volume, checkpoint, file
  kBusy,         // clients connected, another operation, another server
  kTimeout,      // the outcome may still come
  kMismatch,     // two things that must be equal are not
  kHalfway,      // stopped half-way; the text says what to do
  kUnreachable,  // the store does not answer
  kFenced,       // fenced or diverged
  kCorrupt,      // what was read back is not what was written
  kUnreadable,   // the primary image could not be read
  kVoid,         // a checkpoint that does not come to exist; nothing changed
  kDenied,       // TLS or authentication: one side does not believe the other, or it may not
};

// An operating error: what kind, which errno (0: none), and in which act on which object.
struct Error {
  ErrorKind kind = ErrorKind::kIo;
  int number = 0;
  std::string context;

  // One line for people: "fdatasync store/journal/7: Input/output error".
  [[nodiscard]] std::string message() const;
  // The errno that a system interface (NBD, exit status) gets for this error.
  [[nodiscard]] int to_errno() const;
};

// What an errno means, in English.
std::string errno_text(int number);

class Unexpected {
 public:
  explicit Unexpected(Error error) : error_(std::move(error)) {}
  [[nodiscard]] const Error& error() const& { return error_; }
  [[nodiscard]] Error&& error() && { return std::move(error_); }

 private:
  Error error_;
};

// A failure of a kind, in an act; number is an errno or 0.
Unexpected fail(ErrorKind kind, std::string context, int number = 0);
// A failed system call: kNoSpace for ENOSPC and EDQUOT, kNotFound for ENOENT, else kIo.
Unexpected fail_errno(int number, std::string context);
// The same error with "context: " in front of what it says.
Unexpected within(std::string context, Error error);

template <typename T = void>
class [[nodiscard]] Result {
 public:
  Result(T value) : value_(std::in_place_index<0>, std::move(value)) {}  // NOLINT: as std::expected
  Result(Unexpected unexpected)                                          // NOLINT: as std::expected
      : value_(std::in_place_index<1>, std::move(unexpected).error()) {}

  [[nodiscard]] bool has_value() const { return value_.index() == 0; }
  explicit operator bool() const { return has_value(); }
  T& value() & { return std::get<0>(value_); }
  const T& value() const& { return std::get<0>(value_); }
  T&& value() && { return std::get<0>(std::move(value_)); }
  T& operator*() & { return value(); }
  const T& operator*() const& { return value(); }
  T&& operator*() && { return std::move(*this).value(); }
  T* operator->() { return &value(); }
  const T* operator->() const { return &value(); }
  [[nodiscard]] const Error& error() const { return std::get<1>(value_); }

 private:
  std::variant<T, Error> value_;
};

template <>
class [[nodiscard]] Result<void> {
 public:
  Result() = default;
  Result(Unexpected unexpected)  // NOLINT(google-explicit-constructor): as std::expected
      : error_(std::move(unexpected).error()) {}

  [[nodiscard]] bool has_value() const { return !error_.has_value(); }
  explicit operator bool() const { return has_value(); }
  [[nodiscard]] const Error& error() const { return *error_; }

 private:
  std::optional<Error> error_;
};

// A programmer's error: says where and aborts, in release builds too. Never for input.
[[noreturn]] void check_failed(const char* expression, const char* file, int line);

}  // namespace ckpt

#define CKPT_CHECK(expression) \
  (static_cast<bool>(expression) ? void(0) : ::ckpt::check_failed(#expression, __FILE__, __LINE__))

// Passes an error on as it is.
#define CKPT_TRY(expression)                             \
  do {                                                   \
    if (auto&& try_result = (expression); !try_result) { \
      return ::ckpt::Unexpected(try_result.error());     \
    }                                                    \
  } while (false)

#define CKPT_JOIN_(a, b) a##b
#define CKPT_JOIN(a, b) CKPT_JOIN_(a, b)
// The target may be a declaration, which cannot stand in parentheses.
// NOLINTBEGIN(bugprone-macro-parentheses)
#define CKPT_ASSIGN_(result, target, expression) \
  auto result = (expression);                    \
  if (!result) {                                 \
    return ::ckpt::Unexpected(result.error());   \
  }                                              \
  target = std::move(result).value()
// NOLINTEND(bugprone-macro-parentheses)
// CKPT_ASSIGN(auto file, directory.open("x")): the value, or passes the error on.
#define CKPT_ASSIGN(target, expression) \
  CKPT_ASSIGN_(CKPT_JOIN(assign_result_, __LINE__), target, expression)
