// SPDX-License-Identifier: Apache-2.0
// What the tool says and where: results on standard output, everything else on standard error.
#pragma once

#include <cstdio>
#include <string>
#include <string_view>

#include "plugin/control_codec.h"

namespace ckpt {

// How much is said, and to whom.
struct Verbosity {
  bool json = false;     // results as JSON lines
  bool quiet = false;    // no progress, no remarks, results as short as they can be
  bool verbose = false;  // details too
};

// The three standard streams. Not owned: they outlive the console.
struct Streams {
  std::FILE* in = nullptr;
  std::FILE* out = nullptr;
  std::FILE* err = nullptr;
  bool in_is_terminal = false;
  bool out_is_terminal = false;
  bool err_is_terminal = false;
  bool out_draws = false;  // out is a terminal that can be drawn over
  size_t columns = 80;     // of the terminal that err is
  bool colours = false;    // allowed on out, if it is a terminal
};
// Those of the process. Colours as no-color.org says.
Streams standard_streams();

enum class Colour { kPlain, kGood, kWarning, kBad };

// Threads: one.
class Console {
 public:
  explicit Console(const Streams& streams) : streams_(streams) {}
  void set(const Verbosity& verbosity) { verbosity_ = verbosity; }
  [[nodiscard]] const Verbosity& verbosity() const { return verbosity_; }

  // A result for people, with its newline; nothing with --json.
  void print(std::string_view text);
  // A result for scripts, with --json only.
  void result(const Json& fields);
  // What happens while a command runs, for scripts, with --json only.
  void event(const Json& fields);
  // A line about what goes on; nothing when quiet.
  void remark(std::string_view text);
  // The same, only when verbose.
  void detail(std::string_view text);
  // Why it ends. For scripts and for people.
  void error(const Error& error);

  // Whether somebody can be asked.
  [[nodiscard]] bool interactive() const {
    return streams_.in_is_terminal && streams_.err_is_terminal;
  }
  // Asks for y or n; anything but y is no.
  bool confirm(std::string_view question);
  // What is about to be done; is_agreed: it is only said. kVoid: no, and `refused` says so.
  Result<> agree(const std::string& plan, const char* question, bool is_agreed,
                 const char* refused);

  [[nodiscard]] std::string paint(Colour colour, const std::string& text) const;
  // Whether a line on standard error can be drawn over again and again.
  [[nodiscard]] bool draws() const { return streams_.err_is_terminal && !verbosity_.quiet; }
  [[nodiscard]] bool out_is_terminal() const { return streams_.out_is_terminal; }
  // Whether standard output can be drawn over, as a whole.
  [[nodiscard]] bool out_draws() const { return streams_.out_draws; }
  [[nodiscard]] size_t columns() const { return streams_.columns; }
  // Replaces the line on the terminal that standard error is. Empty: leaves no line.
  void draw(std::string_view line);

  // Everything printed has arrived; kIo or kNoSpace if not.
  Result<> finish();

 private:
  Streams streams_;
  Verbosity verbosity_;
};

}  // namespace ckpt
