// SPDX-License-Identifier: Apache-2.0
// Who we are in TLS, and whom we believe: certificates, or keys that both sides have.
//
// Source: the files are nbdkit's (nbdkit-tls(1)): of a folder ca-cert.pem,
// {server,client}-cert.pem,
//         {server,client}-key.pem and, if it is there, ca-crl.pem; or a file of psktool(1).
#pragma once

#include <gnutls/gnutls.h>

#include <memory>
#include <string>

#include "common/result.h"

namespace ckpt {

enum class TlsSide { kServer, kClient };

struct TlsOptions {
  std::string certificates;  // a folder; empty: none
  std::string psk;           // a file; empty: none. One of the two
  // A server's: clients must have a certificate that the same authority has signed. Keys say it
  // anyway. A client always verifies the server.
  bool verify_peer = true;
};

// Threads:  any, once loaded.
// Lifetime: connections share it.
class TlsCredentials {
 public:
  // kInvalid: a file is missing, cannot be read, or does not fit; a private key that others may
  // read is refused, too.
  static Result<std::shared_ptr<const TlsCredentials>> load(const TlsOptions& options,
                                                            TlsSide side);
  ~TlsCredentials();
  TlsCredentials(const TlsCredentials&) = delete;
  TlsCredentials& operator=(const TlsCredentials&) = delete;

  // Makes a session use them. TLS 1.3 and nothing below.
  [[nodiscard]] Result<> apply(gnutls_session_t session) const;
  [[nodiscard]] bool has_certificates() const { return certificates_ != nullptr; }
  [[nodiscard]] TlsSide side() const { return side_; }

 private:
  TlsCredentials(TlsSide side, bool verify_peer) : side_(side), verify_peer_(verify_peer) {}
  Result<> load_certificates(const std::string& folder);
  Result<> load_keys(const std::string& file);
  Result<> load_own_key(const std::string& file);

  const TlsSide side_;
  const bool verify_peer_;
  gnutls_certificate_credentials_t certificates_ = nullptr;
  gnutls_psk_server_credentials_t server_keys_ = nullptr;
  gnutls_psk_client_credentials_t client_keys_ = nullptr;
};

}  // namespace ckpt
