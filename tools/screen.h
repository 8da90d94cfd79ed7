// SPDX-License-Identifier: Apache-2.0
// A view that fills the terminal and is drawn over again and again.
#pragma once

#include <chrono>
#include <string>
#include <string_view>
#include <vector>

namespace ckpt {

// A line of UTF-8 in rows of so many characters; at least one row, and at least one character a
// row. Control sequences (ECMA-48, CSI) have no width: those at a row's end belong to it.
std::vector<std::string> fold_line(std::string_view line, size_t columns);

// The terminal's other buffer: what was there comes back at the end, also where a signal ends or
// stops the process. Standard output must be a terminal.
//
// Lifetime: one at a time; SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGTSTP and SIGWINCH are its own
// meanwhile. Threads:  one. Source:   xterm's control sequences, private modes 25 and 1049.
class Screen {
 public:
  Screen();
  ~Screen();
  Screen(const Screen&) = delete;
  Screen& operator=(const Screen&) = delete;

  // Replaces what is shown by as much of `text` as the terminal has room for now. Long lines are
  // folded.
  void show(std::string_view text);
  // Blocks for that long, or until the terminal has another size or the process goes on after a
  // stop.
  void wait(std::chrono::nanoseconds time);
};

}  // namespace ckpt
