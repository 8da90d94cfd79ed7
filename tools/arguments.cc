// SPDX-License-Identifier: Apache-2.0
#include "tools/arguments.h"

#include <fmt/core.h>

#include <CLI/CLI.hpp>
#include <charconv>
#include <filesystem>
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

void Arguments::add_filled_text(const std::string& name, const std::string& type,
                                std::string& value, const std::string& help) {
  const CLI::Validator filled(
      [](const std::string& text) { return text.empty() ? "is empty" : std::string(); }, "");
  command_.add_option(name, value, help)->type_name(type)->check(filled);
}

void Arguments::add_texts(const std::string& name, const std::string& type,
                          std::vector<std::string>& values, const std::string& help) {
  command_.add_option(name, values, help)
      ->type_name(type)
      ->expected(1)
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
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

namespace {

constexpr const char* kCommonGroup = "Options of every command";

// In nbdkit's words. Paths are made absolute: the volume's record may come to hold them.
void add_tls_options(CLI::App& app, TlsOptions& tls) {
  const auto path_into = [](std::string& path) {
    return [&path](const std::string& text) {
      path = std::filesystem::absolute(text).lexically_normal().string();
    };
  };
  app.add_option_function<std::string>(
         "--tls",
         [&tls](const std::string& word) {
           tls.use = word == "off" ? TlsUse::kOff : TlsUse::kRequire;
         },
         "off: a back-up beyond this machine may be asked without TLS")
      ->check(CLI::IsMember({"off", "require"}))
      ->type_name("WORD")
      ->group(kCommonGroup);
  app.add_option_function<std::string>("--tls-certificates", path_into(tls.certificates),
                                       "Certificates for TLS to a back-up; see nbdkit-tls(1)")
      ->type_name("DIR")
      ->group(kCommonGroup);
  app.add_option_function<std::string>("--tls-psk", path_into(tls.psk),
                                       "A key for TLS to a back-up, as psktool(1) makes it")
      ->type_name("FILE")
      ->group(kCommonGroup);
  app.add_option_function<std::string>(
         "--tls-verify-peer", [&tls](const std::string& word) { tls.verify_peer = word == "on"; },
         "off: any certificate that a back-up shows is believed")
      ->check(CLI::IsMember({"on", "off"}))
      ->type_name("WORD")
      ->group(kCommonGroup);
}

}  // namespace

void add_common_options(CLI::App& app, Invocation& invocation) {
  app.set_help_flag("-h,--help", "Says this and exits")->group(kCommonGroup);
  app.add_flag("--json", invocation.verbosity.json,
               "Results as one JSON object a line; the last has \"type\" \"result\" or \"error\"")
      ->group(kCommonGroup);
  app.add_flag("-q,--quiet", invocation.verbosity.quiet,
               "No progress and no remarks; results as short as they can be")
      ->group(kCommonGroup);
  app.add_flag("-v,--verbose", invocation.verbosity.verbose, "Details too")->group(kCommonGroup);
  app.add_option("--state", invocation.volume.state,
                 "The volume's state directory, where it is not IMAGE.ckpt")
      ->type_name("DIR")
      ->group(kCommonGroup);
  app.add_option("--backup", invocation.volume.backup,
                 "Where the back-up is, as the plugin's backup=; asked only while no server runs")
      ->type_name("WHERE")
      ->group(kCommonGroup)
      ->capture_default_str();
  add_tls_options(app, invocation.volume.tls);
}

Arguments add_command(CLI::App& app, Invocation& invocation, const CommandHelp& help, Act act) {
  CLI::App* command = app.add_subcommand(help.name, help.line);
  command->footer(help.text)->group("Commands");
  command->add_option("VOLUME", invocation.volume.path, "The primary image, or its state directory")
      ->required(help.needs_volume)
      ->type_name("");
  add_common_options(*command, invocation);
  command->callback([command, &invocation, takes_rest = help.takes_rest, act = std::move(act)] {
    invocation.has_volume = command->count("VOLUME") > 0;
    invocation.takes_rest = takes_rest;
    invocation.act = act;
  });
  return Arguments(*command);
}

CLI::App& add_command_group(CLI::App& app, const CommandHelp& help) {
  CLI::App* group = app.add_subcommand(help.name, help.line);
  group->footer(help.text)->group("Commands");
  group->get_formatter()->label("SUBCOMMAND", "COMMAND VOLUME");
  group->require_subcommand(1);
  return *group;
}

}  // namespace ckpt
