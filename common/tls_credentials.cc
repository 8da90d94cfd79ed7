// SPDX-License-Identifier: Apache-2.0
#include "common/tls_credentials.h"

#include <gnutls/crypto.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <fstream>

namespace ckpt {
namespace {

// TLS 1.3 (gnutls manual, "Priority strings"). Keys that both sides have are used with an exchange
// of fresh ones, so that a key that leaks later opens nothing that was said before.
constexpr char kWithCertificates[] = "NORMAL:-VERS-ALL:+VERS-TLS1.3";
constexpr char kWithKeys[] = "NORMAL:-VERS-ALL:+VERS-TLS1.3:-KX-ALL:+ECDHE-PSK:+DHE-PSK";

Unexpected tls_failed(const std::string& act, int code) {
  return fail(ErrorKind::kDenied, act + ": " + gnutls_strerror(code));
}

// Also if it cannot be read: that is an error then, and not as if there were none.
bool is_there(const std::string& path) {
  struct stat status {};
  return ::lstat(path.c_str(), &status) == 0 || errno != ENOENT;
}

Result<KeyLine> parse_key_line(const std::string& line) {
  const size_t colon = line.find(':');
  // psktool writes users that are no text as "#" and digits.
  if (colon == std::string::npos || colon == 0 || line.front() == '#') {
    return fail(ErrorKind::kDenied, "must be USER:KEY, as psktool makes it");
  }
  KeyLine found{line.substr(0, colon), {}};
  std::string digits = line.substr(colon + 1);
  const gnutls_datum_t hex{static_cast<unsigned char*>(static_cast<void*>(digits.data())),
                           static_cast<unsigned>(digits.size())};
  gnutls_datum_t key{};
  const int code = gnutls_hex_decode2(&hex, &key);
  if (code >= 0) {
    found.key.assign(key.data, key.data + key.size);
    gnutls_free(key.data);
  }
  return found.key.empty()
             ? tls_failed("the key of " + found.user, code < 0 ? code : GNUTLS_E_PARSING_ERROR)
             : Result<KeyLine>(std::move(found));
}

Result<std::vector<KeyLine>> read_keys(const std::string& file) {
  std::ifstream lines(file);
  std::vector<KeyLine> keys;
  size_t number = 0;
  for (std::string line; std::getline(lines, line);) {
    ++number;
    if (line.empty()) {
      continue;
    }
    auto parsed = parse_key_line(line);
    if (!parsed) {
      return within(file + ":" + std::to_string(number), parsed.error());
    }
    keys.push_back(std::move(*parsed));
  }
  return lines.bad() || keys.empty() ? fail(ErrorKind::kDenied, file + ": has no key")
                                     : Result<std::vector<KeyLine>>(std::move(keys));
}

// A key that GnuTLS frees.
int give_key(const std::vector<unsigned char>& key, gnutls_datum_t* given) {
  given->data = static_cast<unsigned char*>(gnutls_malloc(key.size()));
  if (given->data == nullptr) {
    return GNUTLS_E_MEMORY_ERROR;
  }
  given->size = static_cast<unsigned>(key.size());
  std::ranges::copy(key, given->data);
  return 0;
}

Result<> check_secret(const std::string& path) {
  struct stat status {};
  if (::stat(path.c_str(), &status) != 0) {
    return fail(ErrorKind::kDenied, path, errno);
  }
  return (status.st_mode & (S_IRWXO | S_IWGRP)) == 0
             ? Result<>()
             : Result<>(fail(ErrorKind::kDenied,
                             path + ": others may read or change it; chmod it to 0600 or 0640"));
}

}  // namespace

Result<std::shared_ptr<const TlsCredentials>> TlsCredentials::load(const TlsOptions& options,
                                                                   TlsSide side) {
  TlsOptions required = options;
  required.use = TlsUse::kRequire;
  CKPT_TRY(check_tls(required));
  std::shared_ptr<TlsCredentials> made(new TlsCredentials(side, options.verifies_peer()));
  CKPT_TRY(options.psk.empty() ? made->load_certificates(options.certificates)
                               : made->load_keys(options.psk));
  return std::shared_ptr<const TlsCredentials>(std::move(made));
}

TlsCredentials::~TlsCredentials() {
  if (certificates_ != nullptr) {
    gnutls_certificate_free_credentials(certificates_);
  }
  if (server_keys_ != nullptr) {
    gnutls_psk_free_server_credentials(server_keys_);
  }
  if (client_keys_ != nullptr) {
    gnutls_psk_free_client_credentials(client_keys_);
  }
}

Result<> TlsCredentials::load_certificates(const std::string& folder) {
  if (const int code = gnutls_certificate_allocate_credentials(&certificates_); code < 0) {
    return tls_failed(folder, code);
  }
  const std::string authority = folder + "/ca-cert.pem";
  if (const int code = gnutls_certificate_set_x509_trust_file(certificates_, authority.c_str(),
                                                              GNUTLS_X509_FMT_PEM);
      code <= 0) {
    return tls_failed(authority, code == 0 ? GNUTLS_E_NO_CERTIFICATE_FOUND : code);
  }
  const std::string revoked = folder + "/ca-crl.pem";
  if (is_there(revoked)) {
    if (const int code = gnutls_certificate_set_x509_crl_file(certificates_, revoked.c_str(),
                                                              GNUTLS_X509_FMT_PEM);
        code < 0) {
      return tls_failed(revoked, code);
    }
  }
  const std::string own = folder + (side_ == TlsSide::kServer ? "/server" : "/client");
  const std::string certificate = own + "-cert.pem";
  const std::string key = own + "-key.pem";
  if (side_ == TlsSide::kClient && !is_there(certificate) && !is_there(key)) {
    return {};  // to a server that asks for none
  }
  CKPT_TRY(check_secret(key));
  if (const int code = gnutls_certificate_set_x509_key_file(certificates_, certificate.c_str(),
                                                            key.c_str(), GNUTLS_X509_FMT_PEM);
      code < 0) {
    return tls_failed(certificate + ", " + key, code);
  }
  return {};
}

Result<> TlsCredentials::load_keys(const std::string& file) {
  CKPT_TRY(check_secret(file));
  CKPT_ASSIGN(auto keys, read_keys(file));
  return side_ == TlsSide::kServer ? take_users(file, keys) : take_own_key(file, keys);
}

// Kept here, and not read again at each connection: what the file says takes effect as a whole.
Result<> TlsCredentials::take_users(const std::string& file, std::vector<KeyLine>& keys) {
  for (KeyLine& line : keys) {
    const auto taken = users_.emplace(line.user, std::move(line.key));
    if (!taken.second) {
      return fail(ErrorKind::kDenied, file + ": has user " + line.user + " twice");
    }
  }
  if (const int code = gnutls_psk_allocate_server_credentials(&server_keys_); code < 0) {
    return tls_failed(file, code);
  }
  gnutls_psk_set_server_credentials_function2(server_keys_, find_key);
  return {};
}

// A user who is not known gets a key that nobody has, so that he learns no more than who has a
// wrong one.
int TlsCredentials::find_key(gnutls_session_t session, const gnutls_datum_t* user,
                             gnutls_datum_t* key) {
  const auto* const credentials =
      static_cast<const TlsCredentials*>(gnutls_session_get_ptr(session));
  const auto found = credentials->users_.find(
      std::string(static_cast<const char*>(static_cast<const void*>(user->data)), user->size));
  if (found != credentials->users_.end()) {
    return give_key(found->second, key);
  }
  std::vector<unsigned char> none(32);
  const int code = gnutls_rnd(GNUTLS_RND_KEY, none.data(), none.size());
  return code < 0 ? code : give_key(none, key);
}

Result<> TlsCredentials::take_own_key(const std::string& file, std::vector<KeyLine>& keys) {
  if (keys.size() != 1) {
    return fail(ErrorKind::kDenied, file + ": must have one line, USER:KEY, as psktool makes it");
  }
  const gnutls_datum_t key{keys[0].key.data(), static_cast<unsigned>(keys[0].key.size())};
  int code = gnutls_psk_allocate_client_credentials(&client_keys_);
  if (code >= 0) {
    code = gnutls_psk_set_client_credentials(client_keys_, keys[0].user.c_str(), &key,
                                             GNUTLS_PSK_KEY_RAW);
  }
  return code < 0 ? Result<>(tls_failed(file, code)) : Result<>();
}

Result<> TlsCredentials::apply(gnutls_session_t session) const {
  const char* const priority = has_certificates() ? kWithCertificates : kWithKeys;
  int code = gnutls_priority_set_direct(session, priority, nullptr);
  if (code >= 0 && has_certificates()) {
    code = gnutls_credentials_set(session, GNUTLS_CRD_CERTIFICATE, certificates_);
  } else if (code >= 0 && side_ == TlsSide::kServer) {
    // For find_key(), which takes it as const again.
    gnutls_session_set_ptr(session, const_cast<TlsCredentials*>(this));
    code = gnutls_credentials_set(session, GNUTLS_CRD_PSK, server_keys_);
  } else if (code >= 0) {
    code = gnutls_credentials_set(session, GNUTLS_CRD_PSK, client_keys_);
  }
  if (code < 0) {
    return tls_failed("TLS", code);
  }
  if (has_certificates() && side_ == TlsSide::kServer) {
    gnutls_certificate_server_set_request(session,
                                          verify_peer_ ? GNUTLS_CERT_REQUIRE : GNUTLS_CERT_IGNORE);
  }
  return {};
}

}  // namespace ckpt
