// SPDX-License-Identifier: Apache-2.0
#include "backupd/daemon_options.h"

#include <CLI/CLI.hpp>

#include "backupd/config_file.h"

namespace ckpt {
namespace {

// What the command line says, each if it does.
struct Words {
  std::vector<std::string> listen;
  std::string config;
  std::string store;
  std::string pid_file;
  std::string tls;
  std::string certificates;
  std::string psk;
  std::string verify_peer;
  unsigned silence = 0;
  bool foreground = false;
  bool check_only = false;
};

void add_options(CLI::App& app, Words& words) {
  app.add_option("--config", words.config, "a file that says the same; see backupd(8)");
  app.add_option("--listen", words.listen, "unix:PATH, HOST:PORT or [V6]:PORT; may be repeated")
      ->expected(1)
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
  app.add_option("--store", words.store, "the folder for the volumes, a folder each");
  app.add_option("--silence", words.silence,
                 "seconds without a word until a connection is given up [15]")
      ->check(CLI::Range(1U, static_cast<unsigned>(kSilenceMax.count())));
  app.add_option("--tls", words.tls, "off: listen beyond this machine without TLS; or require")
      ->check(CLI::IsMember({"off", "require"}));
  app.add_option("--tls-certificates", words.certificates, "the folder of the certificates");
  app.add_option("--tls-psk", words.psk, "the file of the clients' keys");
  app.add_option("--tls-verify-peer", words.verify_peer, "off: clients need no certificate [on]")
      ->check(CLI::IsMember({"on", "off"}));
  app.add_flag("--check-config", words.check_only, "say whether all of this is right, and end");
  app.add_flag("-f,--foreground", words.foreground, "stay in the foreground");
  app.add_option("-P,--pidfile", words.pid_file, "written once connections are taken");
  app.set_version_flag("-V,--version", "backupd " CKPT_VERSION);
}

void set_said(std::string& option, const std::string& word) {
  option = word.empty() ? option : word;
}

// What is said of TLS here stands for all that the file says of it.
Result<> set_tls(TlsOptions& tls, const Words& words) {
  if (!words.tls.empty() || !words.certificates.empty() || !words.psk.empty()) {
    tls = TlsOptions{.certificates = words.certificates, .psk = words.psk};
  }
  if (!words.tls.empty()) {
    CKPT_ASSIGN(tls.use, parse_tls_use(words.tls));
  }
  if (!words.verify_peer.empty()) {
    tls.verify_peer = words.verify_peer == "on";
  }
  return {};
}

Result<DaemonOptions> combine(const Words& words) {
  DaemonOptions options;
  if (!words.config.empty()) {
    CKPT_TRY(read_config_file(words.config, options));
  }
  if (!words.listen.empty()) {
    CKPT_ASSIGN(options.listen, parse_addresses(words.listen));
  }
  set_said(options.store, words.store);
  set_said(options.pid_file, words.pid_file);
  CKPT_TRY(set_tls(options.tls, words));
  if (words.silence != 0) {
    options.silence = std::chrono::seconds(words.silence);
  }
  options.foreground = words.foreground;
  options.check_only = words.check_only;
  if (options.store.empty()) {
    return fail(ErrorKind::kInvalid, "--store is required, or \"store\" in the configuration file");
  }
  CKPT_TRY(check_tls(options.tls));
  const bool proves = options.tls.is_used() && options.tls.verifies_peer();
  if (options.access != nullptr && options.access->names_anybody() && !proves) {
    return fail(ErrorKind::kInvalid,
                "the access list names identities, and nobody has to prove one: give "
                "tls-certificates or tls-psk, and leave tls-verify-peer on");
  }
  return options;
}

}  // namespace

Result<std::vector<Address>> parse_addresses(const std::vector<std::string>& texts) {
  std::vector<Address> addresses;
  for (const std::string& text : texts) {
    CKPT_ASSIGN(addresses.emplace_back(), parse_address(text));
  }
  return addresses;
}

Result<DaemonOptions> parse_daemon_options(int argc, const char* const* argv) {
  CLI::App app("Keeps back-ups of disks that nbdkit-ckpt-plugin serves.", "backupd");
  Words words;
  add_options(app, words);
  try {
    app.parse(argc, argv);
  } catch (const CLI::Success& wish) {
    const bool version = wish.get_name() == "CallForVersion";
    return fail(ErrorKind::kVoid, version ? app.version() : app.help());
  } catch (const CLI::ParseError& wrong) {
    return fail(ErrorKind::kInvalid, wrong.what());
  }
  return combine(words);
}

}  // namespace ckpt
