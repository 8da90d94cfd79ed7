// SPDX-License-Identifier: Apache-2.0
#include "plugin/control_server.h"

#include <poll.h>
#include <pthread.h>
#include <sys/eventfd.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <csignal>
#include <system_error>

#include "plugin/control_attachments.h"
#include "plugin/control_export.h"
#include "plugin/control_http.h"
#include "plugin/metrics.h"

namespace ckpt {
namespace {

using std::chrono::milliseconds;

// A refusal is a few bytes into an empty socket buffer.
constexpr milliseconds kRefusalTimeout{100};
// accept(2) that fails for want of descriptors or memory is tried again after this.
constexpr timespec kAcceptPause{0, 100'000'000};

// Starts a named thread that takes no signal: those belong to nbdkit's own threads. Nothing if the
// system has no more threads to give.
template <typename Body>
Result<std::thread> start_thread(const char* name, Body body) {
  sigset_t all;
  sigset_t before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  std::thread thread;
  int number = 0;
  try {
    thread = std::thread(std::move(body));
    pthread_setname_np(thread.native_handle(), name);
  } catch (const std::system_error& error) {
    number = error.code().value();
  }
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
  if (number != 0) {
    return fail_errno(number, std::string("start thread ") + name);
  }
  return thread;
}

template <typename T>
std::string result_or_error(const Result<T>& outcome) {
  return outcome ? encode_result(to_json(*outcome)) : encode_error(outcome.error());
}

std::string result_or_error(const Result<>& outcome) {
  return outcome ? encode_result(Json::object()) : encode_error(outcome.error());
}

// Tells a client why there is no service for it.
void refuse(ControlConnection& connection, const Error& error) {
  // If even that cannot be said, the closed connection says it.
  (void)connection.send_line(encode_error(error), kRefusalTimeout);
}

// Reads what a client brings for a checkpoint, on a thread of its own, until this object's end. If
// not all of it was read by then, nothing more is read of the connection: it would be taken for
// requests.
class AttachmentReader {
 public:
  AttachmentReader(ControlConnection& connection, AttachmentFeed& feed, milliseconds timeout)
      : connection_(connection), feed_(feed), timeout_(timeout) {}
  ~AttachmentReader() {
    feed_.stop();
    if (!has_all_) {
      connection_.stop_reading();
    }
    if (thread_.joinable()) {
      thread_.join();
    }
  }
  AttachmentReader(const AttachmentReader&) = delete;
  AttachmentReader& operator=(const AttachmentReader&) = delete;

  Result<> start() {
    CKPT_ASSIGN(thread_, start_thread("ckpt-attach", [this] { read(); }));
    return {};
  }

 private:
  void read() noexcept {
    try {
      has_all_ = receive_attachments(connection_, feed_, timeout_);
    } catch (const std::exception&) {
      // Only memory can have run out.
      feed_.abort({ErrorKind::kBusy, ENOMEM, "attachments"});
    }
  }

  ControlConnection& connection_;
  AttachmentFeed& feed_;
  const milliseconds timeout_;
  std::atomic<bool> has_all_{false};
  std::thread thread_;
};

}  // namespace

bool peer_allowed(unsigned peer_uid, unsigned own_uid) {
  return peer_uid == 0 || peer_uid == own_uid;
}

Result<std::unique_ptr<ControlServer>> ControlServer::start(const std::string& state_path,
                                                            VolumeApi& volume,
                                                            ControlLimits limits) {
  std::unique_ptr<ControlServer> server(new ControlServer(state_path, volume, limits));
  server->wake_.reset(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!server->wake_) {
    return fail_errno(errno, "eventfd for control.sock");
  }
  CKPT_ASSIGN(server->listening_, listen_control(state_path));
  CKPT_ASSIGN(server->acceptor_,
              start_thread("ckpt-control", [raw = server.get()] { raw->accept_clients(); }));
  return server;
}

ControlServer::~ControlServer() { stop(); }

void ControlServer::stop() {
  if (!listening_ || stopping_.exchange(true)) {
    return;
  }
  // Nobody is to find a socket that no longer answers.
  remove_control(state_path_);
  wake();
  if (acceptor_.joinable()) {
    acceptor_.join();
  }
  listening_.reset();
  for (const auto& client : clients_) {
    client->connection.shut_down();
  }
  for (const auto& client : clients_) {
    client->thread.join();
  }
  clients_.clear();
}

void ControlServer::wake() {
  const uint64_t one = 1;
  // It fails only when the counter is full, and then the acceptor wakes anyway.
  (void)!::write(wake_.get(), &one, sizeof(one));
}

void ControlServer::accept_clients() {
  while (!stopping_) {
    std::array<pollfd, 2> entries{{{listening_.get(), POLLIN, 0}, {wake_.get(), POLLIN, 0}}};
    if (::poll(entries.data(), entries.size(), -1) < 0) {
      continue;
    }
    reap();
    if (stopping_ || (entries[0].revents & POLLIN) == 0) {
      continue;
    }
    UniqueFd fd(::accept4(listening_.get(), nullptr, nullptr, SOCK_CLOEXEC));
    if (fd) {
      admit(std::move(fd));
    } else if (errno == EMFILE || errno == ENFILE || errno == ENOMEM || errno == ENOBUFS) {
      nanosleep(&kAcceptPause, nullptr);
    }
  }
}

void ControlServer::reap() {
  // Before the look at the clients: one that is done after it wakes us again.
  uint64_t count = 0;
  (void)!::read(wake_.get(), &count, sizeof(count));
  const auto is_done = [](const std::unique_ptr<Client>& client) {
    if (!client->done) {
      return false;
    }
    client->thread.join();
    return true;
  };
  clients_.erase(std::remove_if(clients_.begin(), clients_.end(), is_done), clients_.end());
}

void ControlServer::admit(UniqueFd fd) {
  auto client = std::make_unique<Client>(std::move(fd));
  const Result<unsigned> uid = client->connection.peer_uid();
  if (!uid || !peer_allowed(*uid, ::geteuid())) {
    refuse(client->connection,
           {ErrorKind::kIo, EACCES, "control.sock: only root and the server's own user may ask"});
  } else if (!wait_for_place()) {
    refuse(client->connection,
           {ErrorKind::kBusy, 0, "control.sock: too many connections: try again"});
  } else {
    launch(std::move(client));
  }
}

bool ControlServer::wait_for_place() {
  const auto until = std::chrono::steady_clock::now() + limits_.place_timeout;
  while (clients_.size() >= limits_.connections_max && !stopping_) {
    const auto left =
        std::chrono::ceil<milliseconds>(until - std::chrono::steady_clock::now()).count();
    pollfd entry{wake_.get(), POLLIN, 0};
    if (left <= 0 || ::poll(&entry, 1, static_cast<int>(left)) == 0) {
      break;
    }
    reap();
  }
  return clients_.size() < limits_.connections_max;
}

void ControlServer::launch(std::unique_ptr<Client> client) {
  Result<std::thread> thread =
      start_thread("ckpt-request", [this, raw = client.get()] { serve(*raw); });
  if (!thread) {
    refuse(client->connection, thread.error());
    return;
  }
  client->thread = std::move(*thread);
  clients_.push_back(std::move(client));
}

void ControlServer::serve(Client& client) noexcept {
  try {
    serve_requests(client.connection);
  } catch (const std::exception&) {
    // Only memory can have run out; the client sees its connection end, the volume sees nothing.
  }
  client.connection.shut_down();
  client.done = true;
  wake();
}

void ControlServer::serve_requests(ControlConnection& connection) {
  while (!stopping_) {
    const auto line = connection.receive_line(kRequestBytesMax, limits_.request_timeout);
    if (!line) {
      refuse(connection, line.error());
      return;
    }
    if (!*line) {
      return;
    }
    if (is_http(**line)) {
      const HttpLimits http{kRequestBytesMax, limits_.request_timeout, limits_.answer_timeout};
      serve_http(connection, **line, http,
                 [this] { return encode_metrics(volume_.status(), true); });
      return;
    }
    if (!connection.send_line(answer(connection, **line), limits_.answer_timeout)) {
      return;
    }
  }
}

std::string ControlServer::answer(ControlConnection& connection, const std::string& line) {
  const Result<ControlRequest> request = decode_request(line);
  if (!request) {
    // What follows may be the content of attachments, which must not be taken for requests.
    if (line.find("attachments") != std::string::npos) {
      connection.stop_reading();
    }
    return encode_error(request.error());
  }
  return perform(connection, *request);
}

std::string ControlServer::perform(ControlConnection& connection, const ControlRequest& request) {
  struct Performer {
    ControlServer& server;
    ControlConnection& connection;
    VolumeApi& volume;
    Progress stops_when_gone;
    Progress goes_on;
    ControlExport sink;
    ControlPieces pieces;
    std::string operator()(const StatusRequest& /*status*/) const {
      return encode_result(to_json(volume.status()));
    }
    std::string operator()(const ListRequest& /*list*/) const {
      return result_or_error(volume.checkpoints());
    }
    std::string operator()(const CheckpointRequest& checkpoint) const {
      return server.make(connection, checkpoint);
    }
    std::string operator()(const RollbackRequest& rollback) const {
      return result_or_error(volume.roll_back(rollback, goes_on));
    }
    std::string operator()(const VerifyRequest& /*verify*/) const {
      return result_or_error(volume.verify(stops_when_gone));
    }
    std::string operator()(const AcceptRequest& /*accept*/) const {
      return result_or_error(volume.accept());
    }
    std::string operator()(const ExportRequest& exported) {
      return result_or_error(volume.export_checkpoint(exported.checkpoint, sink));
    }
    std::string operator()(const AttachmentQuery& query) {
      return result_or_error(volume.read_attachment(query.checkpoint, query.name, pieces));
    }
  };
  Performer performer{*this,
                      connection,
                      volume_,
                      progress_to(connection, true),
                      progress_to(connection, false),
                      {connection, limits_.export_timeout},
                      {connection, limits_.export_timeout}};
  std::string answer = std::visit(performer, request);
  if (performer.sink.is_broken() || performer.pieces.is_broken()) {
    connection.shut_down();
  }
  return answer;
}

std::string ControlServer::make(ControlConnection& connection, CheckpointRequest checkpoint) {
  if (checkpoint.on_cut) {
    // A client that is gone need not be told.
    checkpoint.on_cut = [this, &connection](Epoch number) {
      (void)connection.send_line(encode_cut({number}), limits_.answer_timeout);
    };
  }
  return checkpoint.attachments == nullptr ? result_or_error(volume_.checkpoint(checkpoint))
                                           : make_with_attachments(connection, checkpoint);
}

std::string ControlServer::make_with_attachments(ControlConnection& connection,
                                                 const CheckpointRequest& checkpoint) {
  AttachmentReader reader(connection, *checkpoint.attachments, limits_.export_timeout);
  if (auto started = reader.start(); !started) {
    return encode_error(started.error());
  }
  return result_or_error(volume_.checkpoint(checkpoint));
}

// Half a rollback is worth nothing, so it does not stop because nobody watches.
Progress ControlServer::progress_to(ControlConnection& connection, bool stops_when_gone) {
  struct Watcher {
    bool gone = false;
    std::chrono::steady_clock::time_point next{};
  };
  return [this, &connection, stops_when_gone, watcher = std::make_shared<Watcher>()](
             uint64_t done_bytes, uint64_t total_bytes) {
    watcher->gone = watcher->gone || stopping_ || connection.peer_gone();
    const auto now = std::chrono::steady_clock::now();
    if (!watcher->gone && now >= watcher->next) {
      watcher->next = now + limits_.progress_interval;
      watcher->gone =
          !connection.send_line(encode_progress({done_bytes, total_bytes}), limits_.answer_timeout);
    }
    return !(watcher->gone && stops_when_gone);
  };
}

}  // namespace ckpt
