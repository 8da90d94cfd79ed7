// SPDX-License-Identifier: Apache-2.0
// Who we are in TLS, and whom we believe: certificates, or keys that both sides have.
//
// Source: the files are nbdkit's (nbdkit-tls(1)): of a folder ca-cert.pem,
// {server,client}-cert.pem,
//         {server,client}-key.pem and, if it is there, ca-crl.pem; or a file of psktool(1).
#pragma once

#include <gnutls/gnutls.h>

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "common/tls_options.h"

namespace ckpt {

enum class TlsSide { kServer, kClient };

// USER:KEY in hexadecimal, as psktool(1) writes it.
struct KeyLine {
  std::string user;
  std::vector<unsigned char> key;
};

// Threads:  any, once loaded.
// Lifetime: connections share it.
class TlsCredentials {
 public:
  // kDenied: a file is missing, cannot be read, or does not fit; a private key that others may
  // read is refused, too. kInvalid: see check_tls(), or no TLS was asked for.
  static Result<std::shared_ptr<const TlsCredentials>> load(const TlsOptions& options,
                                                            TlsSide side);
  ~TlsCredentials();
  TlsCredentials(const TlsCredentials&) = delete;
  TlsCredentials& operator=(const TlsCredentials&) = delete;

  // Makes a session use them, which they outlive. TLS 1.3 and nothing below.
  [[nodiscard]] Result<> apply(gnutls_session_t session) const;
  [[nodiscard]] bool has_certificates() const { return certificates_ != nullptr; }
  [[nodiscard]] TlsSide side() const { return side_; }
  [[nodiscard]] bool verifies_peer() const { return verify_peer_; }

 private:
  TlsCredentials(TlsSide side, bool verify_peer) : side_(side), verify_peer_(verify_peer) {}
  Result<> load_certificates(const std::string& folder);
  Result<> load_keys(const std::string& file);
  Result<> take_users(const std::string& file, std::vector<KeyLine>& keys);
  Result<> take_own_key(const std::string& file, std::vector<KeyLine>& keys);
  static int find_key(gnutls_session_t session, const gnutls_datum_t* user, gnutls_datum_t* key);

  const TlsSide side_;
  const bool verify_peer_;
  gnutls_certificate_credentials_t certificates_ = nullptr;
  gnutls_psk_server_credentials_t server_keys_ = nullptr;
  gnutls_psk_client_credentials_t client_keys_ = nullptr;
  std::map<std::string, std::vector<unsigned char>> users_;
};

}  // namespace ckpt
