// SPDX-License-Identifier: Apache-2.0
#include "backupd/daemon_options.h"

#include <CLI/CLI.hpp>

namespace ckpt {
namespace {

constexpr unsigned kSilenceMax = 3600;  // seconds

Result<std::vector<Address>> parse_all(const std::vector<std::string>& texts) {
  std::vector<Address> addresses;
  for (const std::string& text : texts) {
    auto address = parse_address(text);
    if (!address) {
      return within("--listen", address.error());
    }
    addresses.push_back(*address);
  }
  return addresses;
}

}  // namespace

Result<DaemonOptions> parse_daemon_options(int argc, const char* const* argv) {
  CLI::App app("Keeps back-ups of disks that nbdkit-ckpt-plugin serves.", "backupd");
  DaemonOptions options;
  std::vector<std::string> listen;
  std::string tls;
  unsigned silence = static_cast<unsigned>(options.silence / std::chrono::seconds(1));
  app.add_option("--listen", listen, "unix:PATH, HOST:PORT or [V6]:PORT; may be repeated")
      ->expected(1)
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
  app.add_option("--store", options.store, "the folder for the volumes, a folder each")->required();
  app.add_option("--silence", silence, "seconds without a word until a connection is given up")
      ->check(CLI::Range(1U, kSilenceMax))
      ->capture_default_str();
  app.add_option("--tls", tls, "off: listen beyond this machine without TLS")
      ->check(CLI::IsMember({"off"}));
  app.add_flag("-f,--foreground", options.foreground, "stay in the foreground");
  app.add_option("-P,--pidfile", options.pid_file, "written once connections are taken");
  app.set_version_flag("-V,--version", "backupd " CKPT_VERSION);
  try {
    app.parse(argc, argv);
  } catch (const CLI::Success& wish) {
    const bool version = wish.get_name() == "CallForVersion";
    return fail(ErrorKind::kVoid, version ? app.version() : app.help());
  } catch (const CLI::ParseError& wrong) {
    return fail(ErrorKind::kInvalid, wrong.what());
  }
  CKPT_ASSIGN(options.listen, parse_all(listen));
  options.tls_off = tls == "off";
  options.silence = std::chrono::seconds(silence);
  return options;
}

}  // namespace ckpt
