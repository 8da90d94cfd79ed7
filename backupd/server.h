// SPDX-License-Identifier: Apache-2.0
// The daemon's listeners and connections.
#pragma once

#include <functional>
#include <list>
#include <thread>

#include "backupd/connection.h"
#include "backupd/log_line.h"
#include "common/socket.h"
#include "common/tls_stream.h"

namespace ckpt {

struct ServerOptions {
  std::chrono::milliseconds silence{15000};
  uint64_t window_bytes = uint64_t{16} << 20U;
  uint64_t connections_max = 1024;
  std::string software;
  LogLine log;
};

// Who may connect by TCP, and do what. A Unix socket is for root and the daemon's own user, who may
// do all.
struct Guard {
  std::shared_ptr<const TlsCredentials> tls;  // nothing: no TLS
  std::shared_ptr<const AccessList> access;   // nothing: whoever connects may do all
};

// Threads:  one that calls run(), which has a thread for each connection.
// Lifetime: the shelf outlives it.
class Server {
 public:
  Server(VolumeShelf& shelf, ServerOptions options) : shelf_(shelf), options_(std::move(options)) {}
  ~Server();
  Server(const Server&) = delete;
  Server& operator=(const Server&) = delete;

  void add_listeners(std::vector<UniqueFd> listeners);
  // Whether all listeners are within that reach; kInvalid names one that is not.
  [[nodiscard]] Result<> check_reach(Reach reach) const;
  [[nodiscard]] bool has_listeners() const { return !listeners_.empty(); }
  // For connections that come from here on; before run(), or in its reload.
  void set_guard(Guard guard) { guard_ = std::move(guard); }
  // Serves until stop_fd can be read. Then requests that have come are still answered, for a while.
  // Calls reload when reload_fd can be read, which it is not afterwards.
  void run(int stop_fd, int reload_fd, const std::function<void()>& reload);

 private:
  struct Served {
    Served(std::string name, std::unique_ptr<SocketStream> client, VolumeShelf& shelf,
           ConnectionOptions options)
        : peer(std::move(name)),
          stream(std::move(client)),
          connection(*stream, shelf, std::move(options)) {}
    const std::string peer;
    const std::unique_ptr<SocketStream> stream;
    Connection connection;
    std::atomic<bool> is_over{false};
    std::thread thread;
  };

  void accept_from(int listener);
  Served& add(AcceptedSocket accepted);
  Result<> greet(Served& served);
  void serve(Served& served);
  void talk(Served& served);
  void look_after();
  void drain();

  VolumeShelf& shelf_;
  const ServerOptions options_;
  Guard guard_;
  std::vector<UniqueFd> listeners_;
  std::list<Served> served_;
};

}  // namespace ckpt
