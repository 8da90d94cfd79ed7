// SPDX-License-Identifier: Apache-2.0
// A stream that is TLS 1.3 from its first byte: nothing is said before.
#pragma once

#include <array>

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

  // Waits for about the silence, for all of it. host: whose certificate a client must be shown.
  // kDenied: either does not believe the other; a client may learn that by its first read only.
  Result<> shake_hands(const std::string& host) override CKPT_EXCLUDES(mutex_);
  // The common name of its certificate, or the user of its key.
  [[nodiscard]] std::string identity() const override CKPT_EXCLUDES(mutex_);

  Result<> read(ByteSpan buffer) override CKPT_EXCLUDES(mutex_);
  Result<> write(ConstByteSpan head, ConstByteSpan body) override CKPT_EXCLUDES(mutex_);

 private:
  // At least a byte, or 0: the socket must be waited for.
  Result<size_t> receive_some(ByteSpan buffer) CKPT_EXCLUDES(mutex_);
  Result<size_t> send_some(ConstByteSpan bytes) CKPT_EXCLUDES(mutex_);
  Result<> write_all(ConstByteSpan bytes, SteadyTime deadline) CKPT_EXCLUDES(mutex_);
  // A write has failed: the stream is over. The alert that the other side may have sent before it
  // closed says more than the write does.
  [[nodiscard]] Unexpected end(const Error& error) CKPT_EXCLUDES(mutex_);
  void set_expectations() CKPT_REQUIRES(mutex_);
  Result<> greet(SteadyTime deadline) CKPT_EXCLUDES(mutex_);
  // One step of it: what it waits for (poll(2)), 0 when it is done.
  Result<short> greet_some() CKPT_EXCLUDES(mutex_);
  [[nodiscard]] Unexpected judge(int code) const CKPT_REQUIRES(mutex_);

  const std::shared_ptr<const TlsCredentials> credentials_;
  // A session takes one call at a time: reader and writer wait for the socket outside of it.
  mutable Mutex mutex_;
  gnutls_session_t session_ CKPT_GUARDED_BY(mutex_) = nullptr;
  bool is_greeted_ CKPT_GUARDED_BY(mutex_) = false;
  // What the other side's certificate must be; GnuTLS looks at them during the handshake.
  std::string host_ CKPT_GUARDED_BY(mutex_);
  std::string purpose_ CKPT_GUARDED_BY(mutex_);
  std::array<gnutls_typed_vdata_st, 2> expected_ CKPT_GUARDED_BY(mutex_){};
};

}  // namespace ckpt
