// SPDX-License-Identifier: Apache-2.0
#include "common/tls_stream.h"

#include <gnutls/x509.h>
#include <poll.h>

#include <algorithm>
#include <array>
namespace ckpt {
namespace {

// What one record holds: the most that a call sends (RFC 8446, 5.1).
constexpr size_t kRecordBytes = 16384;

bool must_wait(ssize_t code) { return code == GNUTLS_E_AGAIN || code == GNUTLS_E_INTERRUPTED; }

bool is_closed(int code) {
  return code == GNUTLS_E_PREMATURE_TERMINATION || code == GNUTLS_E_PULL_ERROR ||
         code == GNUTLS_E_PUSH_ERROR;
}

// Common name of the certificate that the peer has shown; it was verified.
std::string common_name(const gnutls_datum_t& certificate) {
  gnutls_x509_crt_t read = nullptr;
  if (gnutls_x509_crt_init(&read) < 0) {
    return "";
  }
  std::array<char, 256> name{};
  size_t length = name.size();
  const bool has_name = gnutls_x509_crt_import(read, &certificate, GNUTLS_X509_FMT_DER) >= 0 &&
                        gnutls_x509_crt_get_dn_by_oid(read, GNUTLS_OID_X520_COMMON_NAME, 0, 0,
                                                      name.data(), &length) >= 0;
  gnutls_x509_crt_deinit(read);
  return has_name ? std::string(name.data(), length) : "";
}

}  // namespace

TlsStream::TlsStream(UniqueFd socket, std::string peer, std::chrono::milliseconds silence,
                     std::shared_ptr<const TlsCredentials> credentials)
    : SocketStream(std::move(socket), std::move(peer), silence),
      credentials_(std::move(credentials)) {}

TlsStream::~TlsStream() {
  const MutexLock lock(mutex_);
  if (session_ != nullptr) {
    gnutls_deinit(session_);
  }
}

Unexpected TlsStream::judge(int code) const {
  return is_closed(code) ? failed("it has closed the connection", 0)
                         : failed((std::string("TLS: ") + gnutls_strerror(code)).c_str(), 0);
}

Result<> TlsStream::shake_hands(const std::string& host) {
  {
    const MutexLock lock(mutex_);
    const bool is_server = credentials_->side() == TlsSide::kServer;
    const unsigned flags = (is_server ? GNUTLS_SERVER : GNUTLS_CLIENT) | GNUTLS_NONBLOCK |
                           GNUTLS_NO_SIGNAL | GNUTLS_NO_TICKETS;
    if (const int code = gnutls_init(&session_, flags); code < 0) {
      return judge(code);
    }
    CKPT_TRY(credentials_->apply(session_));
    gnutls_transport_set_int(session_, fd());
    if (!is_server && credentials_->has_certificates()) {
      gnutls_session_set_verify_cert(session_, host.c_str(), 0);
    }
  }
  return greet(system_clock().steady() + silence());
}

Result<> TlsStream::greet(SteadyTime deadline) {
  while (system_clock().steady() < deadline) {
    CKPT_ASSIGN(const short events, greet_some());
    if (events == 0) {
      return {};
    }
    CKPT_TRY(wait_for(events));
  }
  return failed("TLS: its greeting takes too long", 0);
}

Result<short> TlsStream::greet_some() {
  const MutexLock lock(mutex_);
  const int code = gnutls_handshake(session_);
  if (code == GNUTLS_E_SUCCESS) {
    return short{0};
  }
  if (gnutls_error_is_fatal(code) == 0) {
    return static_cast<short>(gnutls_record_get_direction(session_) == 1 ? POLLOUT : POLLIN);
  }
  (void)gnutls_alert_send_appropriate(session_, code);
  Error error = judge(code).error();
  error.kind = is_closed(code) ? ErrorKind::kUnreachable : ErrorKind::kFenced;
  return Unexpected(std::move(error));
}

std::string TlsStream::identity() const {
  const MutexLock lock(mutex_);
  if (!credentials_->has_certificates()) {
    const char* const user = gnutls_psk_server_get_username(session_);
    return user == nullptr ? "" : user;
  }
  unsigned count = 0;
  const gnutls_datum_t* const shown = gnutls_certificate_get_peers(session_, &count);
  return shown == nullptr || count == 0 ? "" : common_name(*shown);
}

Result<> TlsStream::read(ByteSpan buffer) {
  while (!buffer.empty()) {
    ssize_t count = 0;
    {
      const MutexLock lock(mutex_);
      count = gnutls_record_recv(session_, buffer.data(), buffer.size());
    }
    if (count > 0) {
      buffer = buffer.subspan(static_cast<size_t>(count));
    } else if (count == 0) {
      return failed("it has closed the connection", 0);
    } else if (must_wait(count)) {
      CKPT_TRY(wait_for(POLLIN));
    } else if (gnutls_error_is_fatal(static_cast<int>(count)) != 0) {
      return judge(static_cast<int>(count));
    }
  }
  return {};
}

Result<> TlsStream::write(ConstByteSpan head, ConstByteSpan body) {
  CKPT_TRY(write_all(head));
  return write_all(body);
}

// A record that could not be sent whole is sent on by the same call again (gnutls_record_send(3)).
Result<> TlsStream::write_all(ConstByteSpan bytes) {
  while (!bytes.empty()) {
    const ConstByteSpan part = bytes.first(std::min(bytes.size(), kRecordBytes));
    ssize_t count = 0;
    {
      const MutexLock lock(mutex_);
      count = gnutls_record_send(session_, part.data(), part.size());
    }
    if (count >= 0) {
      bytes = bytes.subspan(static_cast<size_t>(count));
    } else if (must_wait(count)) {
      CKPT_TRY(wait_for(POLLOUT));
    } else {
      return judge(static_cast<int>(count));
    }
  }
  return {};
}

}  // namespace ckpt
