// SPDX-License-Identifier: Apache-2.0
// Makes connections to backupd for one volume, and ends them all when the server stops.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <vector>

#include "common/address.h"
#include "common/mutex.h"
#include "common/primary_place.h"
#include "common/store_client.h"
#include "common/stream.h"
#include "common/tls_options.h"

namespace ckpt {

// A Unix socket in the folder with its volumes, for root and its own user, at which every backupd
// listens.
inline constexpr const char* kBackupdSocketName = "backupd.sock";

// Where a back-up is, and of what.
struct RemoteOptions {
  Address address;
  TlsOptions tls;
  Uuid volume;
  uint64_t size_bytes = 0;              // 0: as the store has it; then only readers connect
  std::string name{};                   // what the volume is called; empty: it is not said
  std::optional<PrimaryPlace> place{};  // of who has a session; nothing: it is not said
  bool is_relay = false;                // who has the session is a store, and no primary
  // For a connection to be made, and for its welcome.
  std::chrono::milliseconds patience{5000};
};

// Makes a stream to where a back-up is. kUnreachable: nobody answers in time; kDenied: TLS.
using ConnectStream = std::function<Result<std::unique_ptr<Stream>>(const RemoteOptions& options)>;
// By a socket of this machine, with TLS if the options say so; certificates and keys are read anew.
Result<std::unique_ptr<Stream>> connect_by_socket(const RemoteOptions& options);

// Threads: any.
class StoreDialer {
 public:
  // A connection; whoever waits in it returns when the dialer stops. The dialer outlives it.
  class Call {
   public:
    Call(StoreDialer& dialer, std::unique_ptr<Stream> stream);
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
    const std::unique_ptr<Stream> stream_;
    StoreClient client_;
  };

  StoreDialer(RemoteOptions options, ConnectStream connect)
      : options_(std::move(options)), connect_(std::move(connect)) {}
  [[nodiscard]] const RemoteOptions& options() const { return options_; }

  // Connects and greets. The error is the connection's, or what the back-up says.
  Result<std::unique_ptr<Call>> dial(Role role);
  // Ends all connections, now and later.
  void stop() CKPT_EXCLUDES(mutex_);

 private:
  void add(Stream* stream) CKPT_EXCLUDES(mutex_);
  void remove(Stream* stream) CKPT_EXCLUDES(mutex_);

  const RemoteOptions options_;
  const ConnectStream connect_;
  Mutex mutex_;
  std::vector<Stream*> streams_ CKPT_GUARDED_BY(mutex_);  // each is owned by its Call
  bool is_stopped_ CKPT_GUARDED_BY(mutex_) = false;
};

}  // namespace ckpt
