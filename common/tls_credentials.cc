// SPDX-License-Identifier: Apache-2.0
#include "common/tls_credentials.h"

#include <sys/stat.h>

#include <cerrno>
#include <fstream>

namespace ckpt {
namespace {

// TLS 1.3 (gnutls manual, "Priority strings"). Keys that both sides have are used with an exchange
// of fresh ones, so that a key that leaks later opens nothing that was said before.
constexpr char kWithCertificates[] = "NORMAL:-VERS-ALL:+VERS-TLS1.3";
constexpr char kWithKeys[] = "NORMAL:-VERS-ALL:+VERS-TLS1.3:-KX-ALL:+ECDHE-PSK:+DHE-PSK";

Unexpected tls_failed(const std::string& act, int code) {
  return fail(ErrorKind::kInvalid, act + ": " + gnutls_strerror(code));
}

bool is_there(const std::string& path) {
  struct stat status {};
  return ::stat(path.c_str(), &status) == 0;
}

Result<> check_secret(const std::string& path) {
  struct stat status {};
  if (::stat(path.c_str(), &status) != 0) {
    return fail_errno(errno, path);
  }
  return (status.st_mode & (S_IRWXO | S_IWGRP)) == 0
             ? Result<>()
             : Result<>(fail(ErrorKind::kInvalid,
                             path + ": others may read or change it; chmod it to 0600 or 0640"));
}

}  // namespace

Result<std::shared_ptr<const TlsCredentials>> TlsCredentials::load(const TlsOptions& options,
                                                                   TlsSide side) {
  if (options.certificates.empty() == options.psk.empty()) {
    return fail(ErrorKind::kInvalid, "TLS needs tls-certificates=DIR or tls-psk=FILE, one of them");
  }
  std::shared_ptr<TlsCredentials> made(new TlsCredentials(side, options.verify_peer));
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
  if (side_ == TlsSide::kClient) {
    return load_own_key(file);
  }
  int code = gnutls_psk_allocate_server_credentials(&server_keys_);
  if (code >= 0) {
    code = gnutls_psk_set_server_credentials_file(server_keys_, file.c_str());
  }
  return code < 0 ? Result<>(tls_failed(file, code)) : Result<>();
}

// A client's file has one line, USER:KEY in hexadecimal: it is that user.
Result<> TlsCredentials::load_own_key(const std::string& file) {
  std::ifstream lines(file);
  std::string line;
  std::string another;
  std::getline(lines, line);
  const size_t colon = line.find(':');
  if (colon == std::string::npos || colon == 0 || std::getline(lines, another)) {
    return fail(ErrorKind::kInvalid, file + ": must have one line, USER:KEY, as psktool makes it");
  }
  const std::string user = line.substr(0, colon);
  std::string digits = line.substr(colon + 1);
  gnutls_datum_t key{};
  key.data = static_cast<unsigned char*>(static_cast<void*>(digits.data()));
  key.size = static_cast<unsigned>(digits.size());
  int code = gnutls_psk_allocate_client_credentials(&client_keys_);
  if (code >= 0) {
    code = gnutls_psk_set_client_credentials(client_keys_, user.c_str(), &key, GNUTLS_PSK_KEY_HEX);
  }
  return code < 0 ? Result<>(tls_failed(file, code)) : Result<>();
}

Result<> TlsCredentials::apply(gnutls_session_t session) const {
  const char* const priority = has_certificates() ? kWithCertificates : kWithKeys;
  int code = gnutls_priority_set_direct(session, priority, nullptr);
  if (code >= 0 && has_certificates()) {
    code = gnutls_credentials_set(session, GNUTLS_CRD_CERTIFICATE, certificates_);
  } else if (code >= 0 && side_ == TlsSide::kServer) {
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
    if (verify_peer_) {
      gnutls_session_set_verify_cert(session, nullptr, 0);
    }
  }
  return {};
}

}  // namespace ckpt
