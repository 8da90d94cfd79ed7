// SPDX-License-Identifier: Apache-2.0
#include "common/store_dialer.h"

namespace ckpt {

StoreDialer::Call::Call(StoreDialer& dialer, std::unique_ptr<Stream> stream)
    : dialer_(dialer), stream_(std::move(stream)), client_(*stream_) {
  dialer_.add(stream_.get());
}

StoreDialer::Call::~Call() { dialer_.remove(stream_.get()); }

Result<> StoreDialer::Call::greet(const Hello& hello) {
  CKPT_TRY(stream_->shake_hands(dialer_.options().address.host));
  if (auto greeted = client_.greet(hello); !greeted) {
    return explain(greeted.error());
  }
  stream_->set_silence(client_.welcome().silence);
  return {};
}

// An error of the stream names whom it is with already.
Unexpected StoreDialer::Call::explain(const Error& error) const {
  const RemoteOptions& options = dialer_.options();
  const std::string address = options.address.to_string();
  if (!error.context.starts_with(address)) {
    return within(address, error);
  }
  // To whom it does not let in backupd says nothing.
  if (error.kind != ErrorKind::kUnreachable || !is_over()) {
    return Unexpected(error);
  }
  if (options.address.is_unix()) {
    return fail(error.kind,
                error.context + " (only root and the user that backupd runs as are let in)",
                error.number);
  }
  return options.tls.is_used()
             ? Unexpected(error)
             : fail(error.kind,
                    error.context + " (if it takes TLS only: give tls-certificates or tls-psk)",
                    error.number);
}

Result<std::unique_ptr<StoreDialer::Call>> StoreDialer::dial(Role role) {
  CKPT_ASSIGN(auto stream, connect_(options_));
  auto call = std::make_unique<Call>(*this, std::move(stream));
  CKPT_TRY(call->greet({.features = options_.is_relay ? kFeatures & ~kKnowsPrimary : kFeatures,
                        .volume = options_.volume,
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
  streams_.push_back(stream);
  if (is_stopped_) {
    stream->shut_down();
  }
}

void StoreDialer::remove(Stream* stream) {
  const MutexLock lock(mutex_);
  std::erase(streams_, stream);
}

}  // namespace ckpt
