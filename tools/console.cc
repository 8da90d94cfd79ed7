// SPDX-License-Identifier: Apache-2.0
#include "tools/console.h"

#include <sys/ioctl.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdlib>

#include "tools/format.h"

namespace ckpt {
namespace {

void put(std::FILE* stream, std::string_view text) {
  // A failure shows at finish(); on standard error there is nobody left to tell.
  (void)!std::fwrite(text.data(), 1, text.size(), stream);
}

size_t terminal_columns() {
  winsize size{};
  return ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0 ? size.ws_col : 80;
}

// Whether terminals here know control sequences.
bool terminal_is_able() {
  const char* terminal = std::getenv("TERM");
  return terminal != nullptr && std::string_view(terminal) != "dumb";
}

bool colours_wanted() {
  const char* unwanted = std::getenv("NO_COLOR");
  return (unwanted == nullptr || *unwanted == '\0') && terminal_is_able();
}

// SGR parameters (ECMA-48, 8.3.117).
const char* code_of(Colour colour) {
  switch (colour) {
    case Colour::kGood: return "32";
    case Colour::kWarning: return "33";
    case Colour::kBad: return "31";
    case Colour::kPlain: break;
  }
  return "0";
}

}  // namespace

Streams standard_streams() {
  Streams streams{stdin, stdout, stderr};
  streams.in_is_terminal = isatty(STDIN_FILENO) == 1;
  streams.out_is_terminal = isatty(STDOUT_FILENO) == 1;
  streams.err_is_terminal = isatty(STDERR_FILENO) == 1;
  streams.out_draws = streams.out_is_terminal && terminal_is_able();
  streams.columns = terminal_columns();
  streams.colours = colours_wanted();
  return streams;
}

void Console::print(std::string_view text) {
  if (!verbosity_.json) {
    put(streams_.out, text);
    std::fflush(streams_.out);
  }
}

void Console::result(const Json& fields) {
  if (verbosity_.json) {
    put(streams_.out, encode_result(fields) + "\n");
    std::fflush(streams_.out);
  }
}

void Console::event(const Json& fields) {
  if (verbosity_.json) {
    Json object{{"schema", kControlSchema}, {"type", "event"}};
    object.update(fields);
    put(streams_.out, to_line(object) + "\n");
    std::fflush(streams_.out);
  }
}

void Console::remark(std::string_view text) {
  if (!verbosity_.quiet) {
    put(streams_.err, std::string(text) + "\n");
  }
}

void Console::detail(std::string_view text) {
  if (verbosity_.verbose) {
    put(streams_.err, std::string(text) + "\n");
  }
}

void Console::error(const Error& error) {
  if (verbosity_.json) {
    put(streams_.out, encode_error(error) + "\n");
  }
  put(streams_.err, "ckpt-tool: " + printable(error.message()) + "\n");
}

Result<> Console::agree(const std::string& plan, const char* question, bool is_agreed,
                        const char* refused) {
  if (is_agreed) {
    remark(plan);
    return {};
  }
  return confirm(plan + "\n" + question)
             ? Result<>()
             : Result<>(fail(ErrorKind::kVoid, std::string(refused) + ": nothing changed"));
}

bool Console::confirm(std::string_view question) {
  put(streams_.err, std::string(question) + " [y/N] ");
  std::fflush(streams_.err);
  std::array<char, 64> line{};
  if (std::fgets(line.data(), static_cast<int>(line.size()), streams_.in) == nullptr) {
    return false;
  }
  const std::string_view answer(line.data());
  return answer == "y\n" || answer == "Y\n" || answer == "yes\n";
}

std::string Console::paint(Colour colour, const std::string& text) const {
  if (!streams_.out_is_terminal || !streams_.colours || colour == Colour::kPlain) {
    return text;
  }
  return std::string("\x1b[") + code_of(colour) + "m" + text + "\x1b[0m";
}

void Console::draw(std::string_view line) {
  // Carriage return, then erase to the end of the line (ECMA-48, EL).
  put(streams_.err, "\r\x1b[K" + std::string(line));
  std::fflush(streams_.err);
}

Result<> Console::finish() {
  std::fflush(streams_.err);
  if (std::fflush(streams_.out) != 0 || std::ferror(streams_.out) != 0) {
    return fail_errno(errno == 0 ? EIO : errno, "write to standard output");
  }
  return {};
}

}  // namespace ckpt
