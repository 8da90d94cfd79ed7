// SPDX-License-Identifier: Apache-2.0
#include "backupd/server.h"

#include <poll.h>

#include <algorithm>
#include <cerrno>

#include "backupd/thread.h"
#include "common/clock.h"
#include "common/text.h"

namespace ckpt {
namespace {

constexpr std::chrono::milliseconds kLookMax{1000};
constexpr std::chrono::seconds kDrainMax{10};
constexpr std::chrono::milliseconds kDrainLook{10};
constexpr std::chrono::milliseconds kNoDescriptorsRest{100};

// 0 says "none".
uint64_t connection_number() { return system_random().next() | 1U; }

}  // namespace

Server::~Server() {
  for (Served& served : served_) {
    served.stream->shut_down();
    served.thread.join();
  }
}

void Server::add_listeners(std::vector<UniqueFd> listeners) {
  std::ranges::move(listeners, std::back_inserter(listeners_));
}

Result<> Server::check_reach(Reach reach) const {
  for (const UniqueFd& listener : listeners_) {
    CKPT_TRY(check_bound(listener.get(), reach));
  }
  return {};
}

void Server::run(int stop_fd, int reload_fd, const std::function<void()>& reload) {
  std::vector<pollfd> waited{{stop_fd, POLLIN, 0}, {reload_fd, POLLIN, 0}};
  for (const UniqueFd& listener : listeners_) {
    waited.push_back({listener.get(), POLLIN, 0});
  }
  // Heralds come often enough for the time that the protocol promises.
  const auto look_every = std::min(options_.silence / 6, kLookMax);
  while ((waited.front().revents & POLLIN) == 0) {
    if (::poll(waited.data(), waited.size(), static_cast<int>(look_every.count())) < 0) {
      std::ranges::for_each(waited, [](pollfd& one) { one.revents = 0; });
    }
    if ((waited[1].revents & POLLIN) != 0) {
      reload();
    }
    for (size_t i = 2; i < waited.size(); ++i) {
      if (waited[i].revents != 0) {
        accept_from(waited[i].fd);
      }
    }
    look_after();
  }
  listeners_.clear();
  drain();
}

void Server::accept_from(int listener) {
  auto accepted = accept_socket(listener);
  if (!accepted) {
    const int number = accepted.error().number;
    if (number != EAGAIN && number != ECONNABORTED) {
      options_.log(accepted.error().message());
    }
    if (number == EMFILE || number == ENFILE || number == ENOMEM) {
      std::this_thread::sleep_for(kNoDescriptorsRest);
    }
    return;
  }
  if (served_.size() >= options_.connections_max) {
    options_.log(accepted->peer + ": turned away: there are too many connections");
    return;
  }
  Served& served = add(std::move(*accepted));
  auto started = start_thread("backupd-serve", [this, &served] { serve(served); });
  if (!started) {
    options_.log(served.peer + ": turned away: " + started.error().message());
    served_.pop_back();
    return;
  }
  served.thread = std::move(*started);
}

Server::Served& Server::add(AcceptedSocket accepted) {
  const bool is_guarded = !accepted.is_local;
  ConnectionOptions options{.number = connection_number(),
                            .silence = options_.silence,
                            .window_bytes = options_.window_bytes,
                            .software = options_.software,
                            .peer = accepted.peer,
                            .access = is_guarded ? guard_.access : nullptr,
                            .is_local = accepted.is_local};
  std::unique_ptr<SocketStream> stream =
      is_guarded && guard_.tls != nullptr
          ? std::make_unique<TlsStream>(std::move(accepted.socket), accepted.peer, options_.silence,
                                        guard_.tls)
          : std::make_unique<SocketStream>(std::move(accepted.socket), accepted.peer,
                                           options_.silence);
  // A checkpoint may have to wait for whoever takes an export.
  stream->set_write_limit(2 * options_.silence);
  return served_.emplace_back(accepted.peer, std::move(stream), shelf_, std::move(options));
}

// An exception that nobody catches ends the daemon: what a store was in the middle of is settled by
// its recovery, and by nothing less.
void Server::serve(Served& served) {
  talk(served);
  served.connection.leave();
  served.stream->shut_down();
  served.is_over.store(true);
}

Result<> Server::greet(Served& served) {
  CKPT_TRY(served.stream->shake_hands(""));
  served.connection.set_identity(served.stream->identity());
  return served.connection.greet();
}

void Server::talk(Served& served) {
  Connection& connection = served.connection;
  auto outcome = greet(served);
  const Hello& hello = connection.hello();
  const bool is_session = outcome && hello.role == Role::kSession;
  const std::string& identity = connection.identity();
  const std::string name = served.peer +
                           (identity.empty() ? "" : " (" + printable(identity) + ")") +
                           (hello.volume.is_nil() ? "" : ", volume " + hello.volume.to_string());
  if (is_session) {
    options_.log(name + ": connected");
  }
  while (outcome) {
    outcome = connection.step();
    if (const auto remark = connection.take_remark()) {
      options_.log(name + ": " + remark->message());
    }
  }
  // Readers come and go; only what is wrong with one is worth a line.
  if (is_session || outcome.error().kind != ErrorKind::kUnreachable) {
    options_.log(name + ": the connection has ended: " + outcome.error().message());
  }
}

void Server::look_after() {
  const SteadyTime now = system_clock().steady();
  for (auto served = served_.begin(); served != served_.end();) {
    if (served->is_over.load()) {
      served->thread.join();
      served = served_.erase(served);
    } else {
      served->connection.herald(now);
      ++served;
    }
  }
}

void Server::drain() {
  for (Served& served : served_) {
    served.stream->stop_reading();
  }
  const SteadyTime deadline = system_clock().steady() + kDrainMax;
  while (!served_.empty() && system_clock().steady() < deadline) {
    std::this_thread::sleep_for(kDrainLook);
    look_after();
  }
}

}  // namespace ckpt
