// SPDX-License-Identifier: Apache-2.0
#include "plugin/checkpoint_name.h"

#include <algorithm>

namespace ckpt {
namespace {

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

Result<CheckpointInfo> find_checkpoint(const std::vector<CheckpointInfo>& kept,
                                       std::string_view id) {
  if (kept.empty()) {
    return fail(ErrorKind::kNotFound,
                "no checkpoint is confirmed yet: make one (ckpt-tool checkpoint)");
  }
  if (id == "last") {
    return kept.back();
  }
  for (const CheckpointInfo& checkpoint : kept) {
    const bool is_named = !id.empty() && id == checkpoint.name;
    if (is_named || id == std::to_string(checkpoint.id.number.value)) {
      return checkpoint;
    }
  }
  return fail(ErrorKind::kNotFound, "there is no checkpoint \"" + std::string(id) +
                                        "\", or it is no longer kept: see `ckpt-tool list`");
}

}  // namespace ckpt
