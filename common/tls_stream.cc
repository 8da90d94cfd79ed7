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

// What comes is not of this protocol, or not of its version 1.3.
bool is_foreign(int code) {
  return code == GNUTLS_E_UNEXPECTED_PACKET || code == GNUTLS_E_UNEXPECTED_PACKET_LENGTH ||
         code == GNUTLS_E_UNSUPPORTED_VERSION_PACKET;
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

// Why the certificate that was shown is not believed.
std::string describe_certificate(gnutls_session_t session) {
  gnutls_datum_t text{};
  const unsigned status = gnutls_session_get_verify_cert_status(session);
  if (gnutls_certificate_verification_status_print(status, GNUTLS_CRT_X509, &text, 0) < 0) {
    return gnutls_strerror(GNUTLS_E_CERTIFICATE_VERIFICATION_ERROR);
  }
  std::string why(static_cast<const char*>(static_cast<const void*>(text.data)), text.size);
  gnutls_free(text.data);
  return why.substr(0, why.find_last_not_of(' ') + 1);
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

// The other side's own word, if it has sent one, is what people can act on.
Unexpected TlsStream::judge(int code) const {
  // A record that was cut off is one, too: the other side was killed while it sent.
  if (is_closed(code) || (code == GNUTLS_E_UNEXPECTED_PACKET_LENGTH && is_over())) {
    return failed("it has closed the connection", 0);
  }
  std::string why = gnutls_strerror(code);
  if (code == GNUTLS_E_FATAL_ALERT_RECEIVED) {
    const char* const alert = gnutls_alert_get_name(gnutls_alert_get(session_));
    why = std::string("it refuses this side: ") + (alert == nullptr ? "no reason given" : alert);
  } else if (code == GNUTLS_E_CERTIFICATE_VERIFICATION_ERROR) {
    why = describe_certificate(session_);
  } else if (is_foreign(code)) {
    why = "it does not speak TLS 1.3";
  }
  // What a wrong key, or a user who is not known, looks like from either side (RFC 8446, 4.2.11).
  const bool is_refusal =
      code == GNUTLS_E_FATAL_ALERT_RECEIVED || code == GNUTLS_E_RECEIVED_ILLEGAL_PARAMETER;
  if (is_refusal && !credentials_->has_certificates()) {
    why += " (do both sides have this user, with the same key?)";
  }
  Error error = failed("TLS: " + why, 0).error();
  // Once it was greeted nothing but its own word says that it does not believe this side.
  const bool is_denial = !is_greeted_ || code == GNUTLS_E_FATAL_ALERT_RECEIVED;
  error.kind = is_denial ? ErrorKind::kDenied : ErrorKind::kUnreachable;
  return Unexpected(std::move(error));
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
    host_ = host;
    if (credentials_->has_certificates() && credentials_->verifies_peer()) {
      set_expectations();
    }
  }
  return greet(system_clock().steady() + silence());
}

// A certificate of the authority for the other role is not one for this.
void TlsStream::set_expectations() {
  const bool is_server = credentials_->side() == TlsSide::kServer;
  purpose_ = is_server ? GNUTLS_KP_TLS_WWW_CLIENT : GNUTLS_KP_TLS_WWW_SERVER;
  const auto data = [](std::string& text) {
    return static_cast<unsigned char*>(static_cast<void*>(text.data()));
  };
  expected_[0] = {GNUTLS_DT_KEY_PURPOSE_OID, data(purpose_), 0};
  expected_[1] = {GNUTLS_DT_DNS_HOSTNAME, data(host_), 0};
  gnutls_session_set_verify_cert2(session_, expected_.data(), is_server ? 1 : 2, 0);
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
    is_greeted_ = true;
    return short{0};
  }
  if (gnutls_error_is_fatal(code) == 0) {
    return static_cast<short>(gnutls_record_get_direction(session_) == 1 ? POLLOUT : POLLIN);
  }
  (void)gnutls_alert_send_appropriate(session_, code);
  return judge(code);
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

Result<size_t> TlsStream::receive_some(ByteSpan buffer) {
  const MutexLock lock(mutex_);
  ssize_t count = 0;
  do {
    count = gnutls_record_recv(session_, buffer.data(), buffer.size());
  } while (count < 0 && !must_wait(count) && gnutls_error_is_fatal(static_cast<int>(count)) == 0);
  if (count == 0) {
    return failed("it has closed the connection", 0);
  }
  if (count < 0) {
    return must_wait(count) ? Result<size_t>(size_t{0}) : judge(static_cast<int>(count));
  }
  return static_cast<size_t>(count);
}

Result<size_t> TlsStream::send_some(ConstByteSpan bytes) {
  const MutexLock lock(mutex_);
  const ssize_t count = gnutls_record_send(session_, bytes.data(), bytes.size());
  if (count < 0) {
    return must_wait(count) ? Result<size_t>(size_t{0}) : judge(static_cast<int>(count));
  }
  // After a record that was not sent whole GnuTLS says how long that one was, whatever it is given.
  CKPT_CHECK(static_cast<size_t>(count) <= bytes.size());
  return static_cast<size_t>(count);
}

Result<> TlsStream::read(ByteSpan buffer) {
  while (!buffer.empty()) {
    CKPT_ASSIGN(const size_t count, receive_some(buffer));
    if (count == 0) {
      CKPT_TRY(wait_for(POLLIN));
    }
    buffer = buffer.subspan(count);
  }
  return {};
}

Result<> TlsStream::write(ConstByteSpan head, ConstByteSpan body) {
  const SteadyTime deadline = write_deadline();
  auto written = write_all(head, deadline);
  if (written) {
    written = write_all(body, deadline);
  }
  return written ? written : end(written.error());
}

Unexpected TlsStream::end(const Error& error) {
  const MutexLock lock(mutex_);
  std::array<std::byte, 1> unused{};
  const ssize_t code = gnutls_record_recv(session_, unused.data(), unused.size());
  shut_down();  // what is left of a record must not be sent before something else
  return code == GNUTLS_E_FATAL_ALERT_RECEIVED ? judge(static_cast<int>(code)) : Unexpected(error);
}

// A record that could not be sent whole is sent on by the same call again (gnutls_record_send(3)).
Result<> TlsStream::write_all(ConstByteSpan bytes, SteadyTime deadline) {
  while (!bytes.empty()) {
    CKPT_ASSIGN(const size_t count, send_some(bytes.first(std::min(bytes.size(), kRecordBytes))));
    if (count == 0) {
      CKPT_TRY(wait_for(POLLOUT, deadline));
    }
    bytes = bytes.subspan(count);
  }
  return {};
}

}  // namespace ckpt
