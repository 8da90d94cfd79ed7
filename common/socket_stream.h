// SPDX-License-Identifier: Apache-2.0
// A stream over a connected socket: Unix or TCP, without TLS.
#pragma once

#include "common/clock.h"
#include "common/fd.h"
#include "common/stream.h"

namespace ckpt {

class SocketStream : public Stream {
 public:
  // socket: connected; its peer is named so in errors. silence: as set_silence() says.
  SocketStream(UniqueFd socket, std::string peer, std::chrono::milliseconds silence)
      : socket_(std::move(socket)), peer_(std::move(peer)), silence_(silence) {}

  // Plain sockets have nothing to agree on.
  Result<> shake_hands(const std::string& host) override;
  // Whom the other side has proved to be, at a server. Empty: nobody in particular.
  [[nodiscard]] virtual std::string identity() const { return ""; }

  Result<> read(ByteSpan buffer) override;
  Result<> write(ConstByteSpan head, ConstByteSpan body) override;
  [[nodiscard]] bool can_write() const override;
  [[nodiscard]] bool is_over() const override;
  void stop_reading() override;
  void shut_down() override;
  void set_silence(std::chrono::milliseconds silence) override { silence_ = silence; }
  // A write that takes longer than that fails, however slowly the other side goes on to take it. No
  // limit unless this is called, before the stream is shared.
  void set_write_limit(std::chrono::milliseconds limit) { write_limit_ = limit; }

 protected:
  // Until the socket is ready for these poll(2) events, or that time.
  Result<> wait_for(short events, SteadyTime deadline = SteadyTime::max()) const;
  // When a write that begins now must have ended.
  [[nodiscard]] SteadyTime write_deadline() const;
  [[nodiscard]] Unexpected failed(const std::string& act, int number) const;
  [[nodiscard]] int fd() const { return socket_.get(); }
  [[nodiscard]] std::chrono::milliseconds silence() const { return silence_; }

 private:
  [[nodiscard]] bool is_ready(short events, std::chrono::milliseconds time) const;
  // Bytes on their way that the other side has not taken yet.
  [[nodiscard]] int unsent_bytes() const;
  [[nodiscard]] int unread_bytes() const;

  const UniqueFd socket_;
  const std::string peer_;
  std::chrono::milliseconds silence_;
  std::chrono::milliseconds write_limit_{0};  // 0: none; set before the stream is shared
};

}  // namespace ckpt
