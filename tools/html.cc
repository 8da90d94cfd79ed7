// SPDX-License-Identifier: Apache-2.0
#include "tools/html.h"

#include "tools/format.h"

namespace ckpt {

std::string html(std::string_view text) {
  std::string safe;
  for (const char byte : printable(text)) {
    switch (byte) {
      case '&': safe += "&amp;"; break;
      case '<': safe += "&lt;"; break;
      case '>': safe += "&gt;"; break;
      case '"': safe += "&quot;"; break;
      case '\'': safe += "&#39;"; break;
      default: safe += byte;
    }
  }
  return safe;
}

std::string foreign_html(std::string_view text) {
  return text.empty() ? "" : "<bdi>" + html(text) + "</bdi>";
}

}  // namespace ckpt
