// SPDX-License-Identifier: Apache-2.0
#include "plugin/store_dialer.h"

namespace ckpt {

StoreDialer::Call::Call(StoreDialer& dialer, UniqueFd socket)
    : dialer_(dialer),
      stream_(std::move(socket), dialer.options().address.to_string(), dialer.options().patience),
      client_(stream_) {
  dialer_.add(&stream_);
}

StoreDialer::Call::~Call() { dialer_.remove(&stream_); }

Result<> StoreDialer::Call::greet(const Hello& hello) {
  if (auto greeted = client_.greet(hello); !greeted) {
    const Error& error = greeted.error();
    // Whoever is not reached is named in the error already.
    return error.kind == ErrorKind::kUnreachable
               ? greeted
               : Result<>(within(dialer_.options().address.to_string(), error));
  }
  stream_.set_silence(client_.welcome().silence);
  return {};
}

Result<std::unique_ptr<StoreDialer::Call>> StoreDialer::dial(Role role) {
  CKPT_ASSIGN(UniqueFd socket, connect_socket(options_.address, options_.reach, options_.patience));
  auto call = std::make_unique<Call>(*this, std::move(socket));
  CKPT_TRY(call->greet({.volume = options_.volume,
                        .size_bytes = options_.size_bytes,
                        .role = role,
                        .software = "ckpt " CKPT_VERSION}));
  return call;
}

void StoreDialer::stop() {
  const MutexLock lock(mutex_);
  is_stopped_ = true;
  for (Stream* const stream : streams_) {
    stream->shut_down();
  }
}

void StoreDialer::add(Stream* stream) {
  const MutexLock lock(mutex_);
  streams_.insert(stream);
  if (is_stopped_) {
    stream->shut_down();
  }
}

void StoreDialer::remove(Stream* stream) {
  const MutexLock lock(mutex_);
  streams_.erase(stream);
}

}  // namespace ckpt
