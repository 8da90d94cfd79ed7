// SPDX-License-Identifier: Apache-2.0
// The words and exit codes of the control protocol, each in one table.
#include <algorithm>
#include <array>

#include "plugin/control_codec.h"

namespace ckpt {
namespace {

struct KindRow {
  ErrorKind kind;
  const char* word;
  int exit_code;
};

// design: "The contract outside", exit codes.
constexpr std::array<KindRow, 14> kKinds{{
    {ErrorKind::kIo, "io", kExitFailed},
    {ErrorKind::kNoSpace, "no-space", kExitFailed},
    {ErrorKind::kInvalid, "invalid", kExitUsage},
    {ErrorKind::kNotFound, "not-found", 4},
    {ErrorKind::kBusy, "busy", 5},
    {ErrorKind::kTimeout, "timeout", 7},
    {ErrorKind::kMismatch, "mismatch", kExitMismatch},
    {ErrorKind::kHalfway, "halfway", 9},
    {ErrorKind::kUnreachable, "unreachable", 10},
    {ErrorKind::kFenced, "fenced", 11},
    {ErrorKind::kCorrupt, "corrupt", kExitFailed},
    {ErrorKind::kUnreadable, "unreadable", kExitFailed},
    {ErrorKind::kVoid, "void", kExitFailed},
    {ErrorKind::kDenied, "denied", 12},
}};

template <typename Value>
struct WordRow {
  Value value;
  const char* word;
};

constexpr std::array<WordRow<ClientPolicy>, 3> kPolicies{{
    {ClientPolicy::kRefuse, "refuse"},
    {ClientPolicy::kFence, "fence"},
    {ClientPolicy::kKeep, "keep"},
}};

constexpr std::array<WordRow<PrimaryPresence>, 4> kPresences{{
    {PrimaryPresence::kNever, "never"},
    {PrimaryPresence::kConnected, "connected"},
    {PrimaryPresence::kAway, "away"},
    {PrimaryPresence::kStopped, "stopped"},
}};

// nullptr: it has no word.
template <typename Value, size_t kCount>
const char* word_in(const std::array<WordRow<Value>, kCount>& table, Value value) {
  for (const WordRow<Value>& row : table) {
    if (value == row.value) {
      return row.word;
    }
  }
  return nullptr;
}

template <typename Value, size_t kCount>
std::optional<Value> value_in(const std::array<WordRow<Value>, kCount>& table,
                              std::string_view word) {
  for (const WordRow<Value>& row : table) {
    if (word == row.word) {
      return row.value;
    }
  }
  return std::nullopt;
}

const KindRow& row_of(ErrorKind kind) {
  const auto* row = std::find_if(kKinds.begin(), kKinds.end(), [kind](const KindRow& candidate) {
    return candidate.kind == kind;
  });
  CKPT_CHECK(row != kKinds.end());
  return *row;
}

}  // namespace

int exit_code_of(ErrorKind kind) { return row_of(kind).exit_code; }

const char* word_of(ErrorKind kind) { return row_of(kind).word; }

std::optional<ErrorKind> error_kind_of(std::string_view word) {
  for (const KindRow& row : kKinds) {
    if (word == row.word) {
      return row.kind;
    }
  }
  return std::nullopt;
}

const char* word_of(ClientPolicy policy) { return word_in(kPolicies, policy); }

std::optional<ClientPolicy> client_policy_of(std::string_view word) {
  return value_in(kPolicies, word);
}

const char* word_of(PrimaryPresence primary) { return word_in(kPresences, primary); }

std::optional<PrimaryPresence> primary_presence_of(std::string_view word) {
  return value_in(kPresences, word);
}

}  // namespace ckpt
