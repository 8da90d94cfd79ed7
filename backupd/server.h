// SPDX-License-Identifier: Apache-2.0
// The daemon's listeners and connections.
#pragma once

#include <functional>
#include <list>
#include <thread>

#include "backupd/connection.h"
#include "common/socket.h"
#include "common/socket_stream.h"

namespace ckpt {

// Where lines for people go, without a newline; from any thread.
using LogLine = std::function<void(const std::string&)>;

struct ServerOptions {
  std::chrono::milliseconds silence{15000};
  uint64_t window_bytes = uint64_t{16} << 20U;
  uint64_t connections_max = 1024;
  std::string software;
  LogLine log;
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
  [[nodiscard]] bool has_listeners() const { return !listeners_.empty(); }
  // Serves until stop_fd can be read. Then requests that have come are still answered, for a while.
  void run(int stop_fd);

 private:
  struct Served {
    Served(AcceptedSocket accepted, VolumeShelf& shelf, ConnectionOptions options,
           std::chrono::milliseconds silence)
        : peer(accepted.peer),
          stream(std::move(accepted.socket), accepted.peer, silence),
          connection(stream, shelf, std::move(options)) {}
    const std::string peer;
    SocketStream stream;
    Connection connection;
    std::atomic<bool> is_over{false};
    std::thread thread;
  };

  void accept_from(int listener);
  void serve(Served& served);
  void talk(Served& served);
  void look_after();
  void drain();

  VolumeShelf& shelf_;
  const ServerOptions options_;
  std::vector<UniqueFd> listeners_;
  std::list<Served> served_;
};

}  // namespace ckpt
