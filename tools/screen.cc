// SPDX-License-Identifier: Apache-2.0
#include "tools/screen.h"

#include <poll.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <ctime>
#include <initializer_list>

namespace ckpt {
namespace {

// The other buffer, without a cursor; and back.
constexpr std::string_view kEnter = "\x1b[?1049h\x1b[?25l";
constexpr std::string_view kLeave = "\x1b[?25h\x1b[?1049l";

constexpr std::initializer_list<int> kEnding{SIGINT, SIGTERM, SIGHUP, SIGQUIT};

// In one write, so that no half of a view is seen. A terminal that is gone has nobody to tell.
void put(std::string_view text) { (void)!::write(STDOUT_FILENO, text.data(), text.size()); }

// Its action is the default again (SA_RESETHAND), and is taken when this returns.
void leave_and_end(int signal) {
  put(kLeave);
  (void)std::raise(signal);
}

// Returns when the process goes on.
void leave_and_stop(int) {
  const int interrupted = errno;
  put(kLeave);
  (void)std::raise(SIGSTOP);
  put(kEnter);
  errno = interrupted;
}

// Ends a wait, and nothing else.
void end_wait(int) {}

void handle(int signal, void (*handler)(int), int flags) {
  struct sigaction action {};
  action.sa_handler = handler;
  action.sa_flags = flags;
  (void)sigaction(signal, &action, nullptr);
}

// Bytes of the character or control sequence that a text begins with.
size_t unit_length(std::string_view text) {
  size_t length = 1;
  if (text.starts_with("\x1b[")) {
    length = 2;
    while (length < text.size() && (text[length] < '@' || text[length] > '~')) {
      ++length;
    }
    return std::min(length + 1, text.size());
  }
  while (length < text.size() && (static_cast<unsigned char>(text[length]) & 0xc0U) == 0x80U) {
    ++length;
  }
  return length;
}

winsize terminal_size() {
  winsize size{};
  if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) != 0 || size.ws_col == 0 || size.ws_row == 0) {
    size.ws_col = 80;
    size.ws_row = 24;
  }
  return size;
}

}  // namespace

std::vector<std::string> fold_line(std::string_view line, size_t columns) {
  std::vector<std::string> rows(1);
  size_t width = 0;
  while (!line.empty()) {
    const size_t length = unit_length(line);
    if (line.front() != '\x1b' && width++ == std::max<size_t>(columns, 1)) {
      rows.emplace_back();
      width = 1;
    }
    rows.back() += line.substr(0, length);
    line.remove_prefix(length);
  }
  return rows;
}

Screen::Screen() {
  for (const int signal : kEnding) {
    handle(signal, leave_and_end, static_cast<int>(SA_RESETHAND));
  }
  // What asks the server goes on; a wait ends all the same (signal(7): ppoll is never restarted).
  handle(SIGTSTP, leave_and_stop, SA_RESTART);
  handle(SIGWINCH, end_wait, SA_RESTART);
  put(kEnter);
}

Screen::~Screen() {
  put(kLeave);
  for (const int signal : {SIGTSTP, SIGWINCH}) {
    handle(signal, SIG_DFL, 0);
  }
  for (const int signal : kEnding) {
    handle(signal, SIG_DFL, 0);
  }
}

// Home, the rows, each on an erased line, and nothing below them (ECMA-48, CUP, EL and ED).
void Screen::show(std::string_view text) {
  const winsize size = terminal_size();
  std::vector<std::string> rows;
  while (!text.empty() && rows.size() < size.ws_row) {
    const size_t end = std::min(text.find('\n'), text.size());
    for (std::string& row : fold_line(text.substr(0, end), size.ws_col)) {
      rows.push_back(std::move(row));
    }
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  const bool fits = rows.size() < size.ws_row;
  rows.resize(std::min<size_t>(rows.size(), size.ws_row));
  std::string view = "\x1b[H";
  for (size_t i = 0; i < rows.size(); ++i) {
    view.append(i == 0 ? "\x1b[K" : "\r\n\x1b[K").append(rows[i]);
  }
  put(view + (fits ? "\r\n\x1b[J" : ""));
}

void Screen::wait(std::chrono::nanoseconds time) {
  const auto seconds = std::chrono::duration_cast<std::chrono::seconds>(time);
  const timespec limit{seconds.count(), (time - seconds).count()};
  (void)ppoll(nullptr, 0, &limit, nullptr);
}

}  // namespace ckpt
