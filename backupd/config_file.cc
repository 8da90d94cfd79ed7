// SPDX-License-Identifier: Apache-2.0
#include "backupd/config_file.h"

#include <toml++/toml.h>

#include <algorithm>
#include <array>

#include "common/store_link.h"

namespace ckpt {
namespace {

// What is wrong with a value; its place in the file is put in front.
Unexpected wrong(const std::string& what) { return fail(ErrorKind::kInvalid, what); }

Result<std::string> text_of(const toml::node& node) {
  const auto text = node.value<std::string>();
  return text && node.is_string() && !text->empty() ? Result<std::string>(*text)
                                                    : wrong("must be a text, and not empty");
}

// One text, or a list of them.
Result<std::vector<std::string>> texts_of(const toml::node& node) {
  std::vector<std::string> texts;
  if (const toml::array* const list = node.as_array()) {
    for (const toml::node& one : *list) {
      CKPT_ASSIGN(texts.emplace_back(), text_of(one));
    }
  } else {
    CKPT_ASSIGN(texts.emplace_back(), text_of(node));
  }
  return texts.empty() ? wrong("is an empty list") : Result<std::vector<std::string>>(texts);
}

Result<bool> switch_of(const toml::node& node) {
  const auto value = node.value<bool>();
  return value && node.is_boolean() ? Result<bool>(*value) : wrong("must be true or false");
}

Result<> set_listen(DaemonOptions& options, const toml::node& node) {
  CKPT_ASSIGN(const auto texts, texts_of(node));
  CKPT_ASSIGN(options.listen, parse_addresses(texts));
  return {};
}

Result<> set_silence(DaemonOptions& options, const toml::node& node) {
  const auto seconds = node.value<int64_t>();
  if (!seconds || !node.is_integer() || *seconds < 1 || *seconds > kSilenceMax.count()) {
    return wrong("must be from 1 to " + std::to_string(kSilenceMax.count()) + " seconds");
  }
  options.silence = std::chrono::seconds(*seconds);
  return {};
}

template <typename Target>
Result<> set_tls(Target& target, const toml::node& node) {
  CKPT_ASSIGN(const std::string word, text_of(node));
  CKPT_ASSIGN(target.tls.use, parse_tls_use(word));
  return {};
}

template <typename Target>
Result<> set_verify_peer(Target& target, const toml::node& node) {
  CKPT_ASSIGN(target.tls.verify_peer, switch_of(node));
  return {};
}

// A rule for each identity and volume that an [[allow]] names.
struct Allowance {
  std::vector<std::string> identities;
  std::vector<std::optional<Uuid>> volumes;
  uint8_t operations = 0;
};

Result<> set_identities(Allowance& allowance, const toml::node& node) {
  CKPT_ASSIGN(allowance.identities, texts_of(node));
  return {};
}

// Nothing: any.
Result<std::vector<std::optional<Uuid>>> volumes_of(const toml::node& node) {
  CKPT_ASSIGN(const auto texts, texts_of(node));
  std::vector<std::optional<Uuid>> volumes;
  for (const std::string& text : texts) {
    volumes.push_back(Uuid::parse(text));
    if (!volumes.back() && text != "*") {
      return wrong("\"" + text + "\": a volume is its UUID, or \"*\" for any");
    }
  }
  return volumes;
}

Result<> set_volumes(Allowance& allowance, const toml::node& node) {
  CKPT_ASSIGN(allowance.volumes, volumes_of(node));
  return {};
}

Result<> set_operations(Allowance& allowance, const toml::node& node) {
  CKPT_ASSIGN(const auto texts, texts_of(node));
  for (const std::string& text : texts) {
    CKPT_ASSIGN(const Operation operation, parse_operation(text));
    allowance.operations |= static_cast<uint8_t>(operation);
  }
  return {};
}

// A further backupd, and the volumes that a [[relay]] names.
struct Relaying {
  std::optional<Address> to;
  std::vector<std::optional<Uuid>> volumes;
  TlsOptions tls;
};

Result<> set_to(Relaying& relaying, const toml::node& node) {
  CKPT_ASSIGN(const std::string text, text_of(node));
  CKPT_ASSIGN(relaying.to, parse_address(text));
  return {};
}

Result<> set_relayed_volumes(Relaying& relaying, const toml::node& node) {
  CKPT_ASSIGN(relaying.volumes, volumes_of(node));
  return {};
}

template <typename Target>
struct Key {
  const char* name;
  Result<> (*set)(Target&, const toml::node&);
};

template <std::string DaemonOptions::*kField>
Result<> set_text(DaemonOptions& options, const toml::node& node) {
  CKPT_ASSIGN(options.*kField, text_of(node));
  return {};
}

template <typename Target, std::string TlsOptions::*kField>
Result<> set_tls_path(Target& target, const toml::node& node) {
  CKPT_ASSIGN(target.tls.*kField, text_of(node));
  return {};
}

class ConfigReader {
 public:
  ConfigReader(std::string path, DaemonOptions& options)
      : path_(std::move(path)), options_(options) {}

  Result<> read(const toml::table& root) {
    CKPT_TRY(set_all(root, options_, kKeys, {"allow", "relay"}));
    if (const toml::node* const allow = root.get("allow")) {
      CKPT_TRY(read_rules(*allow));
    }
    if (const toml::node* const relay = root.get("relay")) {
      CKPT_TRY(read_relays(*relay));
    }
    return {};
  }

 private:
  static constexpr std::array<Key<DaemonOptions>, 8> kKeys{{
      {"listen", set_listen},
      {"store", set_text<&DaemonOptions::store>},
      {"pidfile", set_text<&DaemonOptions::pid_file>},
      {"silence", set_silence},
      {"tls", set_tls<DaemonOptions>},
      {"tls-certificates", set_tls_path<DaemonOptions, &TlsOptions::certificates>},
      {"tls-psk", set_tls_path<DaemonOptions, &TlsOptions::psk>},
      {"tls-verify-peer", set_verify_peer<DaemonOptions>},
  }};
  static constexpr std::array<Key<Relaying>, 6> kRelayKeys{{
      {"to", set_to},
      {"volume", set_relayed_volumes},
      {"tls", set_tls<Relaying>},
      {"tls-certificates", set_tls_path<Relaying, &TlsOptions::certificates>},
      {"tls-psk", set_tls_path<Relaying, &TlsOptions::psk>},
      {"tls-verify-peer", set_verify_peer<Relaying>},
  }};
  static constexpr std::array<Key<Allowance>, 3> kAllowKeys{{
      {"identity", set_identities},
      {"volume", set_volumes},
      {"operations", set_operations},
  }};

  [[nodiscard]] Unexpected at(const toml::node& node, const std::string& what) const {
    return wrong(path_ + ":" + std::to_string(node.source().begin.line) + ": " + what);
  }

  // All keys of a table; those that are known else are read by the caller.
  template <typename Target, size_t kCount>
  Result<> set_all(const toml::table& table, Target& target,
                   const std::array<Key<Target>, kCount>& keys,
                   std::initializer_list<std::string_view> known = {}) {
    for (const auto& [name, node] : table) {
      const std::string word(name.str());
      const auto* const key =
          std::ranges::find_if(keys, [&](const Key<Target>& one) { return word == one.name; });
      if (key == keys.end() && std::ranges::find(known, word) == known.end()) {
        return at(node, "there is no \"" + word + "\"; see backupd(8)");
      }
      if (key != keys.end()) {
        if (auto set = key->set(target, node); !set) {
          return at(node, word + ": " + set.error().message());
        }
      }
    }
    return {};
  }

  Result<> read_rules(const toml::node& node) {
    const toml::array* const list = node.as_array();
    if (list == nullptr || (!list->empty() && !list->is_array_of_tables())) {
      return at(node, "allow: write [[allow]] above each rule, or allow = [] for nobody");
    }
    std::vector<AccessRule> rules;
    for (const toml::node& rule : *list) {
      Allowance allowance;
      CKPT_TRY(set_all(*rule.as_table(), allowance, kAllowKeys));
      if (allowance.identities.empty() || allowance.volumes.empty() || allowance.operations == 0) {
        return at(rule, "[[allow]] needs identity, volume and operations");
      }
      add(allowance, rules);
    }
    options_.access = std::make_shared<const AccessList>(std::move(rules));
    return {};
  }

  Result<> read_relays(const toml::node& node) {
    const toml::array* const list = node.as_array();
    if (list == nullptr || !list->is_array_of_tables()) {
      return at(node, "relay: write [[relay]] above each");
    }
    for (const toml::node& one : *list) {
      Relaying relaying;
      CKPT_TRY(set_all(*one.as_table(), relaying, kRelayKeys));
      if (options_.relays.size() >= kRelaysMax) {
        return at(one, "more than " + std::to_string(kRelaysMax) + " relays");
      }
      if (!relaying.to) {
        return at(one, "[[relay]] needs to: the address of a further backupd");
      }
      if (auto right = check_tls(relaying.tls); !right) {
        return at(one, right.error().message());
      }
      add(relaying);
    }
    return {};
  }

  void add(const Relaying& relaying) {
    RelayTarget target{.to = *relaying.to, .tls = relaying.tls};
    for (const auto& volume : relaying.volumes) {
      if (!volume) {
        target.volumes.clear();
        break;
      }
      target.volumes.push_back(*volume);
    }
    options_.relays.push_back(std::move(target));
  }

  static void add(const Allowance& allowance, std::vector<AccessRule>& rules) {
    for (const std::string& identity : allowance.identities) {
      for (const auto& volume : allowance.volumes) {
        rules.push_back({identity, volume, allowance.operations});
      }
    }
  }

  const std::string path_;
  DaemonOptions& options_;
};

}  // namespace

Result<> read_config_file(const std::string& path, DaemonOptions& options) {
  try {
    return ConfigReader(path, options).read(toml::parse_file(path));
  } catch (const toml::parse_error& error) {
    const auto line = error.source().begin.line;
    return wrong(path + (line == 0 ? "" : ":" + std::to_string(line)) + ": " +
                 std::string(error.description()));
  }
}

}  // namespace ckpt
