// SPDX-License-Identifier: Apache-2.0
#include "common/block.h"

namespace ckpt {
namespace {

constexpr char kDigits[] = "0123456789abcdef";

void append_hex(std::string& text, uint8_t byte) {
  text.push_back(kDigits[byte >> 4U]);
  text.push_back(kDigits[byte & 15U]);
}

int digit_value(char digit) {
  if (digit >= '0' && digit <= '9') {
    return digit - '0';
  }
  if (digit >= 'a' && digit <= 'f') {
    return digit - 'a' + 10;
  }
  return digit >= 'A' && digit <= 'F' ? digit - 'A' + 10 : -1;
}

bool dash_before(size_t byte) { return byte == 4 || byte == 6 || byte == 8 || byte == 10; }

}  // namespace

std::string Uuid::to_string() const {
  std::string text;
  for (size_t i = 0; i < bytes.size(); ++i) {
    if (dash_before(i)) {
      text.push_back('-');
    }
    append_hex(text, bytes[i]);
  }
  return text;
}

std::optional<Uuid> Uuid::parse(std::string_view text) {
  Uuid uuid;
  if (text.size() != 36) {
    return std::nullopt;
  }
  size_t at = 0;
  for (size_t i = 0; i < uuid.bytes.size(); ++i) {
    if (dash_before(i) && text[at++] != '-') {
      return std::nullopt;
    }
    const int high = digit_value(text[at]);
    const int low = digit_value(text[at + 1]);
    if (high < 0 || low < 0) {
      return std::nullopt;
    }
    uuid.bytes[i] = static_cast<uint8_t>(high * 16 + low);
    at += 2;
  }
  return uuid;
}

std::string Digest::to_string() const {
  std::string text;
  for (const uint8_t byte : bytes) {
    append_hex(text, byte);
  }
  return text;
}

}  // namespace ckpt
