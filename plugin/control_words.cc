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
constexpr std::array<KindRow, 13> kKinds{{
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
}};

struct PolicyRow {
  ClientPolicy policy;
  const char* word;
};

constexpr std::array<PolicyRow, 3> kPolicies{{
    {ClientPolicy::kRefuse, "refuse"},
    {ClientPolicy::kFence, "fence"},
    {ClientPolicy::kKeep, "keep"},
}};

const KindRow& row_of(ErrorKind kind) {
  const auto* row = std::find_if(kKinds.begin(), kKinds.end(), [kind](const KindRow& candidate) {
    return candidate.kind == kind;
  });
  CKPT_CHECK(row != kKinds.end());
  return *row;
}

// Continuation bytes that must follow a first byte of UTF-8; -1: none starts so (RFC 3629, section
// 4).
int continuation_count(unsigned char first) {
  if (first < 0x80U) {
    return 0;
  }
  if (first >= 0xc2U && first <= 0xdfU) {
    return 1;
  }
  if (first >= 0xe0U && first <= 0xefU) {
    return 2;
  }
  return first >= 0xf0U && first <= 0xf4U ? 3 : -1;
}

// Whether a second byte makes the sequence overlong, a surrogate or greater than U+10FFFF.
bool out_of_range(unsigned char first, unsigned char second) {
  return (first == 0xe0U && second < 0xa0U) || (first == 0xedU && second > 0x9fU) ||
         (first == 0xf0U && second < 0x90U) || (first == 0xf4U && second > 0x8fU);
}

bool all_digits(std::string_view text) {
  return text.find_first_not_of("0123456789") == std::string_view::npos;
}

bool has_control_character(std::string_view text) {
  return std::any_of(text.begin(), text.end(), [](char byte) {
    const auto value = static_cast<unsigned char>(byte);
    return value < 0x20U || value == 0x7fU;
  });
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

const char* word_of(ClientPolicy policy) {
  for (const PolicyRow& row : kPolicies) {
    if (policy == row.policy) {
      return row.word;
    }
  }
  return kPolicies.front().word;
}

std::optional<ClientPolicy> client_policy_of(std::string_view word) {
  for (const PolicyRow& row : kPolicies) {
    if (word == row.word) {
      return row.policy;
    }
  }
  return std::nullopt;
}

bool is_utf8(std::string_view text) {
  const auto byte_at = [text](size_t i) { return static_cast<unsigned char>(text[i]); };
  for (size_t i = 0; i < text.size();) {
    const int more = continuation_count(byte_at(i));
    const size_t length = static_cast<size_t>(more) + 1;
    if (more < 0 || text.size() - i < length ||
        (more > 0 && out_of_range(byte_at(i), byte_at(i + 1)))) {
      return false;
    }
    for (size_t k = 1; k < length; ++k) {
      if ((byte_at(i + k) & 0xc0U) != 0x80U) {
        return false;
      }
    }
    i += length;
  }
  return true;
}

Result<> check_name(std::string_view name) {
  if (name.size() > kNameBytesMax) {
    return fail(ErrorKind::kInvalid, "the name is longer than " + std::to_string(kNameBytesMax) +
                                         " bytes: give a shorter one");
  }
  if (!is_utf8(name) || has_control_character(name)) {
    return fail(ErrorKind::kInvalid,
                "the name holds control characters or is not UTF-8: give another");
  }
  if (name == "last" || (!name.empty() && all_digits(name))) {
    return fail(ErrorKind::kInvalid,
                "the name \"" + std::string(name) + "\" means a number or \"last\": give another");
  }
  return {};
}

Result<> check_message(std::string_view message) {
  if (message.size() > kMessageBytesMax) {
    return fail(ErrorKind::kInvalid, "the message is longer than " +
                                         std::to_string(kMessageBytesMax) +
                                         " bytes: give a shorter one");
  }
  if (!is_utf8(message)) {
    return fail(ErrorKind::kInvalid, "the message is not UTF-8");
  }
  return {};
}

}  // namespace ckpt
