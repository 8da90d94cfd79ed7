// SPDX-License-Identifier: Apache-2.0
// What subcommands need of CLI11. They do not include it themselves: it takes ten seconds to
// compile.
#pragma once

#include <string>
#include <vector>

namespace CLI {
class App;
}

namespace ckpt {

// Both ends are allowed.
struct SecondsRange {
  double min;
  double max;
};

// The arguments of one subcommand. Values are set when it is parsed, and outlive the app, as the
// app outlives this. What a value holds when it is added is its default, which the help shows.
class Arguments {
 public:
  explicit Arguments(CLI::App& command) : command_(command) {}

  // A word at its place in the order of adding; required if its value is empty.
  void add_word(const std::string& name, std::string& value, const std::string& help);
  // `type` is what the help calls the value.
  void add_text(const std::string& name, const std::string& type, std::string& value,
                const std::string& help);
  // The same, and an empty text, such as of a variable that is not set, is refused.
  void add_filled_text(const std::string& name, const std::string& type, std::string& value,
                       const std::string& help);
  // May be given again and again.
  void add_texts(const std::string& name, const std::string& type, std::vector<std::string>& values,
                 const std::string& help);
  void add_choice(const std::string& name, const std::string& type, std::string& value,
                  const std::vector<std::string>& allowed, const std::string& help);
  void add_seconds(const std::string& name, double& value, SecondsRange range,
                   const std::string& help);
  // `--name` means `implied`, `--name=S` that.
  void add_optional_seconds(const std::string& name, double& value, double implied,
                            SecondsRange range, const std::string& help);
  void add_flag(const std::string& name, bool& value, const std::string& help);

 private:
  CLI::App& command_;
};

}  // namespace ckpt
