// SPDX-License-Identifier: Apache-2.0
// A stream that is TLS 1.3 from its first byte: nothing is said before.
#pragma once

#include "common/clock.h"
#include "common/mutex.h"
#include "common/socket_stream.h"
#include "common/tls_credentials.h"

namespace ckpt {

class TlsStream final : public SocketStream {
 public:
  // As SocketStream. credentials: those that it uses.
  TlsStream(UniqueFd socket, std::string peer, std::chrono::milliseconds silence,
            std::shared_ptr<const TlsCredentials> credentials);
  ~TlsStream() override;
  TlsStream(const TlsStream&) = delete;
  TlsStream& operator=(const TlsStream&) = delete;

  // Before anything else; waits for the silence at most, for all of it. host: whose certificate a
  // client must be shown; a server has none. kFenced: either does not believe the other.
  Result<> shake_hands(const std::string& host);
  // Whom the other side has proved to be, at a server: the common name of its certificate, or the
  // user of its key. Empty: a client that need not prove anything.
  [[nodiscard]] std::string identity() const;

  Result<> read(ByteSpan buffer) override CKPT_EXCLUDES(mutex_);
  Result<> write(ConstByteSpan head, ConstByteSpan body) override CKPT_EXCLUDES(mutex_);

 private:
  Result<> write_all(ConstByteSpan bytes) CKPT_EXCLUDES(mutex_);
  Result<> greet(SteadyTime deadline) CKPT_EXCLUDES(mutex_);
  // One step of it: what it waits for (poll(2)), 0 when it is done.
  Result<short> greet_some() CKPT_EXCLUDES(mutex_);
  [[nodiscard]] Unexpected judge(int code) const;

  const std::shared_ptr<const TlsCredentials> credentials_;
  // A session takes one call at a time: reader and writer wait for the socket outside of it.
  mutable Mutex mutex_;
  gnutls_session_t session_ CKPT_GUARDED_BY(mutex_) = nullptr;
};

}  // namespace ckpt
