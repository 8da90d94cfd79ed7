// SPDX-License-Identifier: Apache-2.0
#include "common/text.h"

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

// Characters of a terminal's own language: below U+0020, U+007F, and U+0080 to U+009F.
bool is_control(std::string_view character) {
  const auto first = static_cast<unsigned char>(character.front());
  if (character.size() == 1) {
    return first < 0x20U || first == 0x7fU;
  }
  return first == 0xc2U && static_cast<unsigned char>(character[1]) < 0xa0U;
}

}  // namespace

bool is_continuation(char byte) { return (static_cast<unsigned char>(byte) & 0xc0U) == 0x80U; }

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

bool has_control_character(std::string_view text) {
  return std::any_of(text.begin(), text.end(), [](char byte) {
    const auto value = static_cast<unsigned char>(byte);
    return value < 0x20U || value == 0x7fU;
  });
}

std::string printable(std::string_view text) {
  std::string safe;
  for (size_t i = 0; i < text.size();) {
    size_t length = 1;
    while (length < 4 && i + length < text.size() && is_continuation(text[i + length])) {
      ++length;
    }
    const std::string_view character = text.substr(i, length);
    safe += !is_utf8(character) || is_control(character) ? "?" : character;
    i += length;
  }
  return safe;
}

std::string shortened(const std::string& text, size_t bytes_max) {
  size_t end = std::min(text.size(), bytes_max);
  while (end > 0 && end < text.size() && (static_cast<unsigned char>(text[end]) & 0xc0U) == 0x80U) {
    --end;
  }
  return text.substr(0, end);
}

}  // namespace ckpt
