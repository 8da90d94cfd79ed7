// SPDX-License-Identifier: Apache-2.0
// Fields out of JSON that others wrote: nothing of it is believed before it was looked at, and
// nlohmann-json is used only in ways that cannot throw.
#pragma once

#include <limits>
#include <set>

#include "plugin/control_codec.h"

namespace ckpt {

// A line as an object of our schema; kind is that of the error if it is none.
Result<ParsedJson> parse_object(std::string_view line, size_t bytes_max, ErrorKind kind);

std::optional<Digest> parse_digest(std::string_view text);
// "2026-01-31T12:00:00.123Z", as format_time writes it.
std::optional<WallTime> parse_time(const std::string& text);

// Takes fields out of an object. The first that is missing or of the wrong type is the error; from
// then on the values mean nothing, so a decoder checks once, at the end. The object outlives it.
class Fields {
 public:
  Fields(const ParsedJson& object, ErrorKind kind);

  uint64_t number(const char* name, uint64_t most = std::numeric_limits<uint64_t>::max());
  bool flag(const char* name);
  std::string text(const char* name);
  Uuid uuid(const char* name);
  Digest digest(const char* name);
  WallTime time(const char* name);
  // A number of units, as many as nanoseconds can hold.
  template <typename Unit>
  std::chrono::nanoseconds duration(const char* name) {
    constexpr auto kMost =
        std::chrono::duration_cast<Unit>(std::chrono::nanoseconds::max()).count();
    return Unit(static_cast<int64_t>(number(name, static_cast<uint64_t>(kMost))));
  }
  const ParsedJson& array(const char* name);
  // The field; nullptr if it is missing or null.
  const ParsedJson* optional(const char* name);
  // Every field must be one of these: a misspelt one must not silently mean its default.
  void only(const std::set<std::string>& names);
  void take(const Result<>& check);
  void refuse(const std::string& name, const std::string& reason);
  template <typename T>
  Result<T> finish(T value) {
    return error_ ? Result<T>(Unexpected(*error_)) : Result<T>(std::move(value));
  }

 private:
  const ParsedJson* find(const char* name) const;

  const ParsedJson& object_;
  const ErrorKind kind_;
  std::optional<Error> error_;
};

}  // namespace ckpt
