// SPDX-License-Identifier: Apache-2.0
#include "tools/arguments.h"

#include <fmt/core.h>

#include <CLI/CLI.hpp>
#include <charconv>
#include <optional>

#include "tools/command.h"

namespace ckpt {
namespace {

// As a whole, and not "nan", which CLI11's own range lets pass.
std::optional<double> seconds_of(const std::string& text, SecondsRange range) {
  double seconds = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), seconds);
  const bool is_number = error == std::errc() && end == text.data() + text.size();
  return is_number && seconds >= range.min && seconds <= range.max ? std::optional(seconds)
                                                                   : std::nullopt;
}

// Without a description, which the help would show beside the type.
CLI::Validator within(SecondsRange range) {
  return CLI::Validator(
      [range](const std::string& text) {
        return seconds_of(text, range) ? std::string()
                                       : fmt::format("{} is not a number of seconds from {} to {}",
                                                     text, range.min, range.max);
      },
      "");
}

}  // namespace

void Arguments::add_word(const std::string& name, std::string& value, const std::string& help) {
  CLI::Option* option = command_.add_option(name, value, help)->type_name("");
  if (value.empty()) {
    option->required();
  } else {
    option->capture_default_str();
  }
}

void Arguments::add_text(const std::string& name, const std::string& type, std::string& value,
                         const std::string& help) {
  command_.add_option(name, value, help)->type_name(type)->capture_default_str();
}

void Arguments::add_choice(const std::string& name, const std::string& type, std::string& value,
                           const std::vector<std::string>& allowed, const std::string& help) {
  command_.add_option(name, value, help)
      ->type_name(type)
      ->check(CLI::IsMember(allowed))
      ->capture_default_str();
}

void Arguments::add_seconds(const std::string& name, double& value, SecondsRange range,
                            const std::string& help) {
  command_.add_option(name, value, help)
      ->type_name("S")
      ->check(within(range))
      ->capture_default_str();
}

// A flag that may have a value: an option would take the next word for it. CLI11 counts flags in
// whole numbers, so the value is read here.
void Arguments::add_optional_seconds(const std::string& name, double& value, double implied,
                                     SecondsRange range, const std::string& help) {
  command_.add_flag(fmt::format("{}{{{}}}", name, implied), help)
      ->type_name("[=S]")
      ->check(within(range))
      ->each([&value, range](const std::string& text) {
        value = seconds_of(text, range).value_or(value);
      });
}

void Arguments::add_flag(const std::string& name, bool& value, const std::string& help) {
  command_.add_flag(name, value, help);
}

void add_common_options(CLI::App& app, Invocation& invocation) {
  constexpr const char* kGroup = "Options of every command";
  app.set_help_flag("-h,--help", "Says this and exits")->group(kGroup);
  app.add_flag("--json", invocation.verbosity.json,
               "Results as one JSON object a line; the last has \"type\" \"result\" or \"error\"")
      ->group(kGroup);
  app.add_flag("-q,--quiet", invocation.verbosity.quiet,
               "No progress and no remarks; results as short as they can be")
      ->group(kGroup);
  app.add_flag("-v,--verbose", invocation.verbosity.verbose, "Details too")->group(kGroup);
  app.add_option("--state", invocation.volume.state,
                 "The volume's state directory, where it is not IMAGE.ckpt")
      ->type_name("DIR")
      ->group(kGroup);
  app.add_option("--backup", invocation.volume.backup,
                 "Where the back-up is, as the plugin's backup=; asked only while no server runs")
      ->type_name("WHERE")
      ->group(kGroup)
      ->capture_default_str();
  app.add_flag("--tls-off", invocation.volume.tls_off,
               "Ask a back-up beyond this machine (HOST:PORT/UUID) without TLS")
      ->group(kGroup);
}

Arguments add_command(CLI::App& app, Invocation& invocation, const CommandHelp& help, Act act) {
  CLI::App* command = app.add_subcommand(help.name, help.line);
  command->footer(help.text)->group("Commands");
  command->add_option("VOLUME", invocation.volume.path, "The primary image, or its state directory")
      ->required(help.needs_volume)
      ->type_name("");
  add_common_options(*command, invocation);
  command->callback([command, &invocation, act = std::move(act)] {
    invocation.has_volume = command->count("VOLUME") > 0;
    invocation.act = act;
  });
  return Arguments(*command);
}

}  // namespace ckpt
