// SPDX-License-Identifier: Apache-2.0
#include "common/primary_place.h"

#include "common/text.h"

namespace ckpt {
namespace {

constexpr char kUnknownWord[] = "?";
constexpr char kCutMark[] = "...";

// Not from the middle of a character on.
std::string last_part(const std::string& text, size_t bytes_max) {
  size_t begin = text.size() - bytes_max;
  while (begin < text.size() && is_continuation(text[begin])) {
    ++begin;
  }
  return text.substr(begin);
}

std::string fitting(const std::string& text, size_t bytes_max) {
  const std::string safe = printable(text);
  if (safe.empty()) {
    return kUnknownWord;
  }
  return safe.size() <= bytes_max ? safe
                                  : kCutMark + last_part(safe, bytes_max - sizeof(kCutMark) + 1);
}

bool is_word(const std::string& text, size_t bytes_max) {
  return !text.empty() && text.size() <= bytes_max && printable(text) == text;
}

}  // namespace

PrimaryPlace make_place(const Digest& identity, const std::string& host, const std::string& path) {
  return {identity, fitting(host, kHostBytesMax), fitting(path, kImagePathBytesMax)};
}

bool valid_place(const PrimaryPlace& place) {
  return place.identity != Digest{} && is_word(place.host, kHostBytesMax) &&
         is_word(place.path, kImagePathBytesMax);
}

}  // namespace ckpt
