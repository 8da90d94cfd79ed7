// SPDX-License-Identifier: Apache-2.0
// Makes connections to backupd for one volume, and ends them all when the server stops.
#pragma once

#include <memory>
#include <set>

#include "common/address.h"
#include "common/mutex.h"
#include "common/socket_stream.h"
#include "common/tls_options.h"
#include "plugin/store_client.h"

namespace ckpt {

// Where a back-up is, and of what.
struct RemoteOptions {
  Address address;
  TlsOptions tls;
  Uuid volume;
  uint64_t size_bytes = 0;  // 0: as the store has it; then only readers connect
  // For a connection to be made, and for its welcome.
  std::chrono::milliseconds patience{5000};
};

// Threads: any.
class StoreDialer {
 public:
  // A connection; whoever waits in it returns when the dialer stops. The dialer outlives it.
  class Call {
   public:
    Call(StoreDialer& dialer, std::unique_ptr<SocketStream> stream);
    ~Call();
    Call(const Call&) = delete;
    Call& operator=(const Call&) = delete;
    Result<> greet(const Hello& hello);
    [[nodiscard]] bool is_over() const { return stream_->is_over(); }
    StoreClient* operator->() { return &client_; }
    StoreClient& operator*() { return client_; }

   private:
    [[nodiscard]] Unexpected explain(const Error& error) const;

    StoreDialer& dialer_;
    const std::unique_ptr<SocketStream> stream_;
    StoreClient client_;
  };

  explicit StoreDialer(RemoteOptions options) : options_(std::move(options)) {}
  [[nodiscard]] const RemoteOptions& options() const { return options_; }

  // Connects and greets; certificates and keys are read anew. kUnreachable: nobody answers in time;
  // kDenied: TLS; else what the back-up says.
  Result<std::unique_ptr<Call>> dial(Role role);
  // Ends all connections, now and later.
  void stop() CKPT_EXCLUDES(mutex_);

 private:
  [[nodiscard]] Result<std::unique_ptr<SocketStream>> connect() const;
  void add(Stream* stream) CKPT_EXCLUDES(mutex_);
  void remove(Stream* stream) CKPT_EXCLUDES(mutex_);

  const RemoteOptions options_;
  Mutex mutex_;
  std::set<Stream*> streams_ CKPT_GUARDED_BY(mutex_);  // each is owned by its Call
  bool is_stopped_ CKPT_GUARDED_BY(mutex_) = false;
};

}  // namespace ckpt
