// SPDX-License-Identifier: Apache-2.0
// The server of the control socket: takes requests for a volume that is being served, one
// connection a thread.
#pragma once

#include <atomic>
#include <chrono>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "plugin/control_codec.h"
#include "plugin/control_socket.h"

namespace ckpt {

struct ControlLimits {
  size_t connections_max = 32;
  // How long a new one waits for a place: one that has just closed keeps its own a moment longer.
  std::chrono::milliseconds place_timeout{1000};
  // For a whole request line, from when the server waits for it.
  std::chrono::milliseconds request_timeout{10000};
  // For a whole line of an answer; a client that does not read for so long is taken for gone.
  std::chrono::milliseconds answer_timeout{10000};
  // The same for a piece of an export: its destination may write out what it has cached.
  std::chrono::milliseconds export_timeout{30000};
  std::chrono::milliseconds progress_interval{200};
};

// Whether a user may ask a server that runs as another.
bool peer_allowed(unsigned peer_uid, unsigned own_uid);

// Threads:  one accepts, named "ckpt-control"; one for each connection, "ckpt-request". start() and
// stop()
//           from one thread.
// Lifetime: the volume outlives the server. stop() waits for operations under way: end them first,
// where
//           they can be long. A client that goes away stops a verify; a checkpoint or rollback goes
//           on.
// Failure:  a request that is not valid gets an error, and nothing else happens.
// Format:   docs/control-protocol.md
class ControlServer {
 public:
  // Listens in the state directory. kBusy: another server does.
  static Result<std::unique_ptr<ControlServer>> start(const std::string& state_path,
                                                      VolumeApi& volume, ControlLimits limits = {});
  ControlServer(const ControlServer&) = delete;
  ControlServer& operator=(const ControlServer&) = delete;
  ~ControlServer();
  // Ends all connections, joins all threads, removes the socket. Again: nothing.
  void stop();

 private:
  struct Client {
    explicit Client(UniqueFd fd) : connection(std::move(fd)) {}
    ControlConnection connection;
    std::thread thread;
    std::atomic<bool> done{false};
  };

  ControlServer(std::string state_path, VolumeApi& volume, ControlLimits limits)
      : state_path_(std::move(state_path)), volume_(volume), limits_(limits) {}
  void accept_clients();
  void admit(UniqueFd fd);
  void launch(std::unique_ptr<Client> client);
  bool wait_for_place();
  void reap();
  void serve(Client& client) noexcept;
  void serve_requests(ControlConnection& connection);
  std::string answer(ControlConnection& connection, const std::string& line);
  std::string perform(ControlConnection& connection, const ControlRequest& request);
  std::string make(ControlConnection& connection, CheckpointRequest checkpoint);
  // While the volume makes it, a thread of its own reads what the client brings.
  std::string make_with_attachments(ControlConnection& connection,
                                    const CheckpointRequest& checkpoint);
  Progress progress_to(ControlConnection& connection, bool stops_when_gone);
  void wake();

  const std::string state_path_;
  VolumeApi& volume_;
  const ControlLimits limits_;
  UniqueFd listening_;
  UniqueFd wake_;  // an eventfd: a client is done, or all is to stop
  std::atomic<bool> stopping_{false};
  std::thread acceptor_;
  std::vector<std::unique_ptr<Client>> clients_;  // the acceptor's; after its end, stop()'s
};

}  // namespace ckpt
